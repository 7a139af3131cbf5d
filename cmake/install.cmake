# SPDX-License-Identifier: Apache-2.0
# Command, library, header, CMake package, pkg-config file, presets and documents.
set(package_dir "${CMAKE_INSTALL_LIBDIR}/cmake/bsattn_ring")

install(TARGETS bsattn_ring RUNTIME DESTINATION "${CMAKE_INSTALL_BINDIR}")
install(TARGETS bsattn EXPORT bsattn_ringTargets
  ARCHIVE DESTINATION "${CMAKE_INSTALL_LIBDIR}"
  LIBRARY DESTINATION "${CMAKE_INSTALL_LIBDIR}"
  PUBLIC_HEADER DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}")
install(EXPORT bsattn_ringTargets NAMESPACE bsattn:: DESTINATION "${package_dir}")

set(cuda_root "")
set(nccl_root "")
if(BSATTN_HAVE_CUDA)
  get_filename_component(cuda_root "${CUDAToolkit_BIN_DIR}" DIRECTORY)
endif()
if(BSATTN_HAVE_NCCL)
  get_filename_component(nccl_root "${NCCL_INCLUDE_DIR}" DIRECTORY)
endif()
configure_package_config_file(cmake/bsattn_ringConfig.cmake.in
  "${PROJECT_BINARY_DIR}/bsattn_ringConfig.cmake" INSTALL_DESTINATION "${package_dir}")
write_basic_package_version_file(
  "${PROJECT_BINARY_DIR}/bsattn_ringConfigVersion.cmake" COMPATIBILITY SameMinorVersion)
install(FILES "${PROJECT_BINARY_DIR}/bsattn_ringConfig.cmake" "${PROJECT_BINARY_DIR}/bsattn_ringConfigVersion.cmake"
  cmake/FindNCCL.cmake DESTINATION "${package_dir}")

# pkg-config: what a static library needs of others stands in Libs, since no shared library brings it.
set(pc_needs "")
set(pc_libraries ${MPI_C_LIBRARIES} ${OpenMP_C_LIBRARIES})
if(BSATTN_HAVE_HWLOC)
  list(APPEND pc_libraries ${HWLOC_LINK_LIBRARIES})
endif()
if(BSATTN_HAVE_NCCL)
  list(APPEND pc_libraries "${NCCL_LIBRARY}")
endif()
if(BSATTN_HAVE_CUDA)
  list(APPEND pc_libraries "${CUDA_cudart_static_LIBRARY}" -ldl -lrt)
endif()
foreach(library IN LISTS pc_libraries CMAKE_THREAD_LIBS_INIT)
  if(library MATCHES "^-")
    list(APPEND pc_needs "${library}")
  elseif(library)
    get_filename_component(directory "${library}" DIRECTORY)
    get_filename_component(name "${library}" NAME_WE)
    string(REGEX REPLACE "^lib" "" name "${name}")
    if(directory AND NOT directory IN_LIST CMAKE_C_IMPLICIT_LINK_DIRECTORIES)
      list(APPEND pc_needs "-L${directory}")
      if(library MATCHES "\\.so")
        list(APPEND pc_needs "-Wl,-rpath,${directory}")
      endif()
    endif()
    list(APPEND pc_needs "-l${name}")
  endif()
endforeach()
list(APPEND pc_needs -lm)
list(REMOVE_DUPLICATES pc_needs)
string(JOIN " " pc_needs ${pc_needs})
if(BUILD_SHARED_LIBS)
  set(pc_libs "")
  set(pc_libs_private "${pc_needs}")
else()
  set(pc_libs " ${pc_needs}")
  set(pc_libs_private "")
endif()
# The prefix is found from where the file lies, so that the tree may be moved.
file(RELATIVE_PATH pc_prefix "/prefix/${CMAKE_INSTALL_LIBDIR}/pkgconfig" "/prefix")
string(REGEX REPLACE "/$" "" pc_prefix "${pc_prefix}")
configure_file(cmake/bsattn_ring.pc.in "${PROJECT_BINARY_DIR}/bsattn_ring.pc" @ONLY)
install(FILES "${PROJECT_BINARY_DIR}/bsattn_ring.pc" DESTINATION "${CMAKE_INSTALL_LIBDIR}/pkgconfig")

install(DIRECTORY configs DESTINATION "${CMAKE_INSTALL_DATADIR}/bsattn_ring" FILES_MATCHING PATTERN "*.conf")
install(FILES LICENSE README.md DESTINATION "${CMAKE_INSTALL_DOCDIR}")
