# SPDX-License-Identifier: Apache-2.0
# The last thing that a configure run says.
if(BUILD_SHARED_LIBS)
  set(kind "shared")
else()
  set(kind "static")
endif()
if(NOT BSATTN_BENCH)
  set(bench_text "off")
elseif(OPENBLAS_FOUND)
  set(bench_text "on, with OpenBLAS ${OPENBLAS_VERSION}")
else()
  set(bench_text "on, without those that need OpenBLAS: not found (libopenblas-dev)")
endif()
if(BSATTN_SANITIZE)
  set(sanitize_text "${BSATTN_SANITIZE}")
else()
  set(sanitize_text "off")
endif()
message(STATUS "bsattn_ring ${PROJECT_VERSION}
     build       ${CMAKE_BUILD_TYPE}, ${kind} library, in ${PROJECT_BINARY_DIR}
     compiler    ${CMAKE_C_COMPILER_ID} ${CMAKE_C_COMPILER_VERSION} (${CMAKE_C_COMPILER})
     processor   ${CMAKE_SYSTEM_PROCESSOR}: ${variants_text}
     MPI         ${MPI_C_VERSION}, ${MPIEXEC_EXECUTABLE}
     OpenMP      ${OpenMP_C_VERSION}
     inih        ${INIH_VERSION}
     cJSON       ${CJSON_VERSION}
     CUDA        ${cuda_text}
     NCCL        ${nccl_text}
     hwloc       ${hwloc_text}
     sanitizers  ${sanitize_text}
     benchmarks  ${bench_text}
     tests       ${tests_text}
")
