# Files are globbed: a new .c file in a folder needs no line here. A folder without sources is no error.
function(eg_sources out folder)
    file(GLOB files CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/${folder}/*.c)
    set(${out} ${files} PARENT_SCOPE)
endfunction()

# Sources write #include "log/writer.h". What a target may include is what its directory
# <build>/inc/<target>/ links to, so that an include against the rules does not compile.
function(eg_includes target)
    set(directory ${CMAKE_BINARY_DIR}/inc/${target})
    file(REMOVE_RECURSE ${directory})
    file(MAKE_DIRECTORY ${directory})
    foreach(folder IN LISTS ARGN)
        file(CREATE_LINK ${CMAKE_SOURCE_DIR}/src/${folder} ${directory}/${folder} SYMBOLIC)
    endforeach()
    target_include_directories(${target} PRIVATE ${CMAKE_SOURCE_DIR}/include ${directory})
endfunction()

# eg_library(folder uses...): src/<folder> as the static library eg_<folder>.
function(eg_library folder)
    eg_sources(sources src/${folder})
    if(NOT sources)
        message(STATUS "no sources in src/${folder}/: eg_${folder} is left out")
        return()
    endif()
    add_library(eg_${folder} STATIC ${sources})
    eg_includes(eg_${folder} ${folder} ${ARGN})
    foreach(used IN LISTS ARGN)
        if(TARGET eg_${used})
            target_link_libraries(eg_${folder} PUBLIC eg_${used})
        endif()
    endforeach()
endfunction()

# eg_program(target name sources...)
function(eg_program target name)
    add_executable(${target} ${ARGN})
    set_target_properties(${target} PROPERTIES OUTPUT_NAME ${name})
endfunction()
