# SPDX-License-Identifier: Apache-2.0
#
# What the build needs, and the message that helps where it is missing. Required: MPI, OpenMP, threads; inih and cJSON for
# the command. Optional: cmocka (unit tests), OpenBLAS (one benchmark), CUDA, NCCL and hwloc.

set(missing_text "")

# dependency_missing(WHAT PACKAGE): collect, so that one run of CMake names all that is missing.
macro(dependency_missing what package)
  string(APPEND missing_text "\n  ${what}: on Debian and Ubuntu, apt-get install ${package}")
endmacro()

find_package(PkgConfig)
if(NOT PkgConfig_FOUND)
  dependency_missing("pkg-config" pkg-config)
endif()

find_package(MPI COMPONENTS C)
if(NOT MPI_C_FOUND)
  dependency_missing("MPI for C" "libopenmpi-dev openmpi-bin")
endif()

find_package(OpenMP COMPONENTS C)
if(NOT OpenMP_C_FOUND)
  if(CMAKE_C_COMPILER_ID MATCHES "Clang")
    dependency_missing("OpenMP for ${CMAKE_C_COMPILER}" "libomp-dev (of the compiler's version)")
  else()
    dependency_missing("OpenMP for ${CMAKE_C_COMPILER}" "gcc")
  endif()
endif()

set(THREADS_PREFER_PTHREAD_FLAG ON)
find_package(Threads REQUIRED)

if(PkgConfig_FOUND)
  pkg_check_modules(INIH IMPORTED_TARGET inih)
  if(NOT INIH_FOUND)
    dependency_missing("inih (config files)" libinih-dev)
  endif()
  pkg_check_modules(CJSON IMPORTED_TARGET libcjson)
  if(NOT CJSON_FOUND)
    dependency_missing("cJSON (records)" libcjson-dev)
  endif()
endif()

if(missing_text)
  message(FATAL_ERROR "bsattn_ring needs what was not found:${missing_text}\n"
                      "launch/quickstart.sh installs all of it on Debian 12 and Ubuntu 24.04.")
endif()

# Unit tests. BSATTN_TESTS unset: built if cmocka is there; ON: cmocka is required; OFF: none.
set(BSATTN_TESTS "AUTO" CACHE STRING "Build the tests: AUTO (if cmocka is found), ON or OFF")
set_property(CACHE BSATTN_TESTS PROPERTY STRINGS AUTO ON OFF)
set(tests_text "off")
if(BSATTN_TESTS)
  pkg_check_modules(CMOCKA IMPORTED_TARGET cmocka)
  if(CMOCKA_FOUND)
    set(tests_text "on, with cmocka ${CMOCKA_VERSION}")
  elseif(BSATTN_TESTS STREQUAL "AUTO")
    set(tests_text "off: cmocka not found (libcmocka-dev)")
  else()
    message(FATAL_ERROR "BSATTN_TESTS=${BSATTN_TESTS}, but cmocka was not found.\n"
                        "  On Debian and Ubuntu: apt-get install libcmocka-dev; or configure with -DBSATTN_TESTS=OFF.")
  endif()
endif()

# Benchmarks compare with a threaded BLAS.
option(BSATTN_BENCH "Build the benchmark programs" ON)
if(BSATTN_BENCH)
  pkg_check_modules(OPENBLAS IMPORTED_TARGET openblas)
endif()

# CUDA, NCCL and hwloc are looked for, so that the summary can say what there is. Nothing in this version links them.
set(BSATTN_CUDA "AUTO" CACHE STRING "Look for CUDA: AUTO, ON (must be found, and nvcc must work) or OFF")
set_property(CACHE BSATTN_CUDA PROPERTY STRINGS AUTO ON OFF)
set(cuda_text "not looked for")
set(nccl_text "not looked for")
if(BSATTN_CUDA)
  if(NOT BSATTN_CUDA STREQUAL "AUTO")
    include(CheckLanguage)
    check_language(CUDA)
    if(NOT CMAKE_CUDA_COMPILER)
      message(FATAL_ERROR "BSATTN_CUDA=${BSATTN_CUDA}, but no CUDA compiler works here. Put nvcc on PATH, set CUDACXX, or "
                          "configure with -DBSATTN_CUDA=OFF.")
    endif()
    enable_language(CUDA)
  endif()
  find_package(CUDAToolkit QUIET)
  if(CUDAToolkit_FOUND)
    set(cuda_text "found ${CUDAToolkit_VERSION}, not used: this version has no GPU backend")
  else()
    set(cuda_text "not found; not needed: this version has no GPU backend")
  endif()
  find_path(NCCL_INCLUDE_DIR nccl.h HINTS ${CUDAToolkit_INCLUDE_DIRS})
  find_library(NCCL_LIBRARY nccl HINTS ${CUDAToolkit_LIBRARY_DIR})
  mark_as_advanced(NCCL_INCLUDE_DIR NCCL_LIBRARY)
  if(NCCL_INCLUDE_DIR AND NCCL_LIBRARY)
    set(nccl_text "found ${NCCL_LIBRARY}, not used: this version has no NCCL transport")
  else()
    set(nccl_text "not found; not needed: this version has no NCCL transport")
  endif()
endif()

pkg_check_modules(HWLOC QUIET hwloc)
if(HWLOC_FOUND)
  set(hwloc_text "found ${HWLOC_VERSION}, not used: this version leaves placement to the launcher")
else()
  set(hwloc_text "not found; not needed: this version leaves placement to the launcher")
endif()
