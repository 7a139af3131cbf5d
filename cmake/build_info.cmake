# SPDX-License-Identifier: Apache-2.0
#
# cmake -DOUT=build_info.h -DSOURCE_DIR=.. -DCOMPILER=.. -DBUILD_TYPE=.. -DFLAGS=.. -P build_info.cmake
#
# Write what `bsattn_ring info` says about its build. Runs in every build; the file is touched only if something changed, and
# one source file reads it, so nothing else is rebuilt when the commit changes.
set(source "unknown")
find_program(GIT_EXECUTABLE git)
if(GIT_EXECUTABLE AND EXISTS "${SOURCE_DIR}/.git")
  execute_process(
    COMMAND "${GIT_EXECUTABLE}" -C "${SOURCE_DIR}" describe --always --tags --dirty
    RESULT_VARIABLE code OUTPUT_VARIABLE described ERROR_QUIET OUTPUT_STRIP_TRAILING_WHITESPACE)
  if(code EQUAL 0 AND described)
    set(source "${described}")
  endif()
endif()
string(REPLACE ";" " " FLAGS "${FLAGS}")
string(REGEX REPLACE " +" " " FLAGS "${FLAGS}")
string(STRIP "${FLAGS}" FLAGS)
set(text "/* made by build_info.cmake */
#define BSATTN_BUILD_SOURCE \"${source}\"
#define BSATTN_BUILD_COMPILER \"${COMPILER}\"
#define BSATTN_BUILD_TYPE \"${BUILD_TYPE}\"
#define BSATTN_BUILD_FLAGS \"${FLAGS}\"
")
set(old "")
if(EXISTS "${OUT}")
  file(READ "${OUT}" old)
endif()
if(NOT old STREQUAL text)
  file(WRITE "${OUT}" "${text}")
endif()
