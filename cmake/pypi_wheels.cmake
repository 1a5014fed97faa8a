# Read by CMake at project(), in a pip build only (setup.py), so that CMakeLists.txt stays a plain ROS one.
#
# The ROS wheels of the Python index export include directories of the machine on which they were built. CMake refuses a
# target that has such a directory, so they are taken off every imported target. This has to wait until the end of
# CMakeLists.txt, when find_package() has made all of them.
function(drop_missing_include_directories)
  get_property(targets DIRECTORY PROPERTY IMPORTED_TARGETS)
  foreach(target IN LISTS targets)
    get_target_property(exported ${target} INTERFACE_INCLUDE_DIRECTORIES)
    set(usable "")
    foreach(directory IN LISTS exported)
      if(EXISTS "${directory}" OR NOT IS_ABSOLUTE "${directory}") # not absolute: a generator expression
        list(APPEND usable "${directory}")
      endif()
    endforeach()
    if(exported)
      set_target_properties(${target} PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "${usable}")
    endif()
  endforeach()
endfunction()

cmake_language(DEFER CALL drop_missing_include_directories)
