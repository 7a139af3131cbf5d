# SPDX-License-Identifier: Apache-2.0
#
# cmake -DDIR=configs -DOUT=presets.inc -P presets.cmake
#
# Write the config files of a folder as elements {"name", "text"}, of a C array, in alphabetical order. Every *.conf of the
# folder is a preset; a study, which sets more than block and pattern, belongs in a folder of its own.
cmake_minimum_required(VERSION 3.25)
if(NOT DIR OR NOT OUT)
  message(FATAL_ERROR "give -DDIR=FOLDER and -DOUT=FILE")
endif()
file(GLOB files "${DIR}/*.conf")
list(SORT files)
set(text "/* made by presets.cmake */\n")
foreach(file IN LISTS files)
  get_filename_component(name "${file}" NAME_WE)
  file(READ "${file}" body)
  string(REPLACE "\\" "\\\\" body "${body}")
  string(REPLACE "\"" "\\\"" body "${body}")
  string(REPLACE "\n" "\\n\"\n     \"" body "${body}")
  string(APPEND text "    {\"${name}\",\n     \"${body}\"},\n")
endforeach()
file(WRITE "${OUT}" "${text}")
