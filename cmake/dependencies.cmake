# SPDX-License-Identifier: Apache-2.0
#
# What the build needs, and the message that helps where it is missing. Required: MPI, OpenMP, threads; inih and cJSON for
# the command. Optional: cmocka (unit tests), OpenBLAS (one benchmark) and hwloc;
# CUDA and NCCL are in cuda.cmake.

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

# What the library can do without. optional_needs: targets that it links.
set(optional_needs "")

set(BSATTN_HAVE_HWLOC OFF)
option(BSATTN_HWLOC "Use hwloc, if it is found, to place threads near their GPU" ON)
if(NOT BSATTN_HWLOC)
  set(hwloc_text "off")
else()
  pkg_check_modules(HWLOC QUIET IMPORTED_TARGET hwloc)
  if(HWLOC_FOUND)
    set(BSATTN_HAVE_HWLOC ON)
    set(hwloc_text "${HWLOC_VERSION}")
    add_compile_definitions($<$<COMPILE_LANGUAGE:C>:BSATTN_HAVE_HWLOC>)
    list(APPEND optional_needs PkgConfig::HWLOC)
  else()
    set(hwloc_text "off: not found (libhwloc-dev); cores stay as the launcher gives them")
  endif()
endif()
