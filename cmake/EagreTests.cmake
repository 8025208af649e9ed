# tests/unit/<folder>/test_*.c   one program each; may include everything internal
# tests/race/test_*.c            likewise: threads against each other
# tests/model/test_*.c           likewise: the protocol
# tests/naive/test_*.c           likewise: a naive log beside the real one; main.c: for any seeds
# tests/history/test_*.c         what producers and consumers log, and what must hold of it
# tests/system/test_*.c          likewise, on the built programs
# tests/fault/test_*.c           likewise, only where fault points are compiled in
# Other .c files in these folders are helpers, linked to each test of the folder; fault takes system's.
# ctest names: unit/log/writer, system/daemon, ...; ctest labels: unit, race, model, history, system, fault, soak, step,
# abi.
set(EG_TEST_TIMEOUT 120)

# Everything internal, users before used.
set(internal "")
foreach(folder client log proto layout sys)
    if(TARGET eg_${folder})
        list(APPEND internal eg_${folder})
    endif()
endforeach()

# What tests may do that nothing else may: include any folder of src/, "daemon" headers by name.
function(eg_test_settings target)
    eg_includes(${target} client log proto layout sys)
    target_include_directories(${target} PRIVATE ${CMAKE_SOURCE_DIR}/tests)
    target_compile_definitions(${target} PRIVATE EG_TEST_BIN_DIR="${CMAKE_BINARY_DIR}/bin")
    target_link_libraries(${target} PRIVATE ${internal} PkgConfig::CMOCKA)
    # GCC does not know that a failed assertion leaves the test; and a name that is cut is one that fails.
    if(CMAKE_C_COMPILER_ID STREQUAL "GNU")
        target_compile_options(${target} PRIVATE -Wno-maybe-uninitialized -Wno-format-truncation)
    else()
        target_compile_options(${target} PRIVATE -Wno-string-plus-int) # "abc" + i is meant
    endif()
endfunction()

# eg_test(label folder helpers...): every test_*.c of tests/<folder>, each with the other .c files of
# that folder and of the folders named as helpers.
function(eg_test label folder)
    set(helpers "")
    foreach(other IN LISTS folder ARGN)
        file(GLOB files CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/tests/${other}/*.c)
        list(FILTER files EXCLUDE REGEX "/(test_[^/]*|main\\.c)$")
        string(REPLACE "/" "_" target eg_helpers_${other})
        if(files AND NOT TARGET ${target})
            add_library(${target} OBJECT ${files})
            eg_test_settings(${target})
        endif()
        if(files)
            list(APPEND helpers ${target})
        endif()
    endforeach()

    file(GLOB files CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/tests/${folder}/test_*.c)
    foreach(file IN LISTS files)
        cmake_path(GET file STEM stem)
        string(REGEX REPLACE "^test_" "" stem ${stem})
        if(${folder}/${stem} IN_LIST EG_TESTS_LEFT_OUT)
            continue()
        endif()
        string(REPLACE "/" "_" target test_${folder}_${stem})
        add_executable(${target} ${file})
        set_target_properties(${target} PROPERTIES
            OUTPUT_NAME test_${stem}
            RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests/${folder})
        eg_test_settings(${target})
        target_link_libraries(${target} PRIVATE ${helpers})
        if(folder STREQUAL "unit/daemon" AND TARGET eagred_core)
            target_include_directories(${target} PRIVATE ${CMAKE_SOURCE_DIR}/daemon)
            target_link_libraries(${target} PRIVATE eagred_core)
        endif()
        foreach(program eagred eagre_keeper eagre_cli)
            if(label MATCHES "^(system|fault)$" AND TARGET ${program})
                add_dependencies(${target} ${program})
            endif()
        endforeach()
        add_test(NAME ${folder}/${stem} COMMAND ${target})
        set_tests_properties(${folder}/${stem} PROPERTIES
            LABELS ${label} TIMEOUT ${EG_TEST_TIMEOUT} SKIP_RETURN_CODE 77)
    endforeach()
endfunction()

file(GLOB folders CONFIGURE_DEPENDS RELATIVE ${CMAKE_SOURCE_DIR}/tests ${CMAKE_SOURCE_DIR}/tests/unit/*)
foreach(folder IN LISTS folders)
    if(folder STREQUAL "unit/daemon" AND NOT TARGET eagred_core)
        message(STATUS "no eagred: tests/unit/daemon is left out")
    else()
        eg_test(unit ${folder})
    endif()
endforeach()
eg_test(race race)
eg_test(model model)
eg_test(naive naive)
eg_test(history history)
eg_test(system system)
include(EagreTorture)
include(EagrePowercut)
if(EAGRE_FAULTPOINTS)
    eg_test(fault fault system history torture)
endif()

# The naive log, for as many seeds as one likes.
if(TARGET eg_helpers_naive)
    eg_program(eg_naive eg-naive ${CMAKE_SOURCE_DIR}/tests/naive/main.c)
    set_target_properties(eg_naive PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests/naive)
    eg_test_settings(eg_naive)
    target_link_libraries(eg_naive PRIVATE eg_helpers_naive)
endif()

# The protocol's model: knows nothing of the sources, only the protocol's steps.
eg_sources(model tests/model)
if(model)
    eg_program(eg_model eg-model ${model})
    set_target_properties(eg_model PROPERTIES
        RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests/model)
    set(runs ${CMAKE_SOURCE_DIR}/tests/model/runs.txt)
    set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${runs})
    file(STRINGS ${runs} lines REGEX "^[+a-z].*:")
    foreach(line IN LISTS lines)
        string(REGEX MATCH "^([+]?)([a-z-]+): *(.*)" line "${line}")
        set(name model/${CMAKE_MATCH_2})
        set(arguments "${CMAKE_MATCH_3}")
        if(CMAKE_MATCH_1 AND (EAGRE_SANITIZE OR NOT CMAKE_C_COMPILER_ID STREQUAL "GNU" OR
                              NOT CMAKE_BUILD_TYPE STREQUAL "Release"))
            continue()
        endif()
        separate_arguments(arguments)
        add_test(NAME ${name} COMMAND eg_model ${arguments})
        set_tests_properties(${name} PROPERTIES LABELS model TIMEOUT ${EG_TEST_TIMEOUT})
    endforeach()
endif()

# Clients that come and go by the thousand; what the instance has in use afterwards is what it had before.
eg_sources(soak tests/soak)
if(soak AND TARGET eagred AND CMAKE_C_COMPILER_ID STREQUAL "GNU" AND NOT EAGRE_SANITIZE MATCHES "thread")
    eg_program(eg_soak eg-soak ${soak})
    set_target_properties(eg_soak PROPERTIES
        RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests/soak)
    eg_test_settings(eg_soak)
    target_link_libraries(eg_soak PRIVATE eg_helpers_system)
    add_dependencies(eg_soak eagred eagre_keeper)
    add_test(NAME soak/cycles COMMAND eg_soak --cycles 1000 --seed 1)
    # Members of one group: very many in a few processes, and as many processes as one has.
    if(EAGRE_SANITIZE)
        set(crowd 200)
    else()
        set(crowd 1000)
    endif()
    add_test(NAME soak/crowd COMMAND eg_soak --members ${crowd} --cycles 1)
    add_test(NAME soak/crowd-of-processes COMMAND eg_soak --members 64 --processes 64 --cycles 1)
    set_tests_properties(soak/cycles soak/crowd soak/crowd-of-processes PROPERTIES
        LABELS soak TIMEOUT ${EG_TEST_TIMEOUT})
endif()

# tests/fuzz/fuzz_TARGET.c: with libFuzzer (preset fuzz), or its corpus and mutations of it as a test. The
# number is that of the mutations; a third of it with a sanitizer. Behind it: other sources, libraries.
function(eg_fuzz name mutations)
    set(target fuzz_${name})
    set(sources ${ARGN})
    list(FILTER sources INCLUDE REGEX "\\.c$")
    list(TRANSFORM sources PREPEND ${CMAKE_SOURCE_DIR}/)
    set(libraries ${ARGN})
    list(FILTER libraries EXCLUDE REGEX "\\.c$")
    eg_program(${target} ${target} ${CMAKE_SOURCE_DIR}/tests/fuzz/${target}.c ${sources})
    set_target_properties(${target} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests/fuzz)
    eg_test_settings(${target})
    # Some targets are made of a program's source: "tools/cmd_produce.c".
    target_include_directories(${target} PRIVATE ${CMAKE_SOURCE_DIR} ${CMAKE_SOURCE_DIR}/daemon)
    target_link_libraries(${target} PRIVATE ${libraries})
    if(EAGRE_SANITIZE MATCHES "fuzzer")
        target_link_options(${target} PRIVATE -fsanitize=fuzzer)
        return()
    endif()
    target_sources(${target} PRIVATE ${CMAKE_SOURCE_DIR}/tests/fuzz/replay.c)
    if(EAGRE_SANITIZE)
        math(EXPR mutations "${mutations} / 3")
    endif()
    add_test(NAME fuzz/${name}
        COMMAND ${target} --mutations ${mutations} ${CMAKE_SOURCE_DIR}/tests/fuzz/corpus/${name})
    set_tests_properties(fuzz/${name} PROPERTIES LABELS fuzz TIMEOUT ${EG_TEST_TIMEOUT} SKIP_RETURN_CODE 77)
endfunction()

if(TARGET eagred_core AND TARGET eagre_cli)
    set(scene tests/fuzz/scene.c tests/fuzz/watch.c tests/fuzz/quiet.c eagred_core)
    eg_fuzz(frames 8000)
    eg_fuzz(logfile 1500)
    eg_fuzz(ring 1000 ${scene})
    if(NOT EAGRE_SANITIZE MATCHES "thread") # which cannot have memory taken away from it: fuzz/watch.h
        eg_fuzz(moving 60 ${scene})
    endif()
    eg_fuzz(config 12000 tests/fuzz/quiet.c eagred_core)
    eg_fuzz(keeper 6000)
    eg_fuzz(format 6000 tests/fuzz/consume_options.c tools/consume_group.c tools/format.c tools/input.c tools/output.c
        tools/places.c tools/portable.c tools/progress.c tools/send.c tools/times.c eagre_static)
    eg_fuzz(messages 900 tests/fuzz/quiet.c eagred_core)
    target_link_options(fuzz_messages PRIVATE -Wl,--wrap=epoll_wait)
    eg_fuzz(replies 2000)
    target_link_options(fuzz_replies PRIVATE
        -Wl,--wrap=connect,--wrap=poll,--wrap=eg_sendmsg_fds,--wrap=eg_recvmsg_fds)
endif()

# Clients and the daemon, as users get them, killed and stopped at each instruction: eg-step.
eg_sources(step tests/step)
if(step AND TARGET eagred AND TARGET eagre_shared AND NOT EAGRE_SANITIZE)
    eg_sources(history tests/history)
    list(FILTER history EXCLUDE REGEX "/test_[^/]*$")
    eg_program(eg_step eg-step ${step} ${history} ${CMAKE_SOURCE_DIR}/tests/system/harness.c)
    set_target_properties(eg_step PROPERTIES
        RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests/step)
    eg_includes(eg_step log layout sys)
    target_include_directories(eg_step PRIVATE ${CMAKE_SOURCE_DIR}/tests ${CMAKE_SOURCE_DIR}/daemon)
    target_compile_definitions(eg_step PRIVATE EG_TEST_BIN_DIR="${CMAKE_BINARY_DIR}/bin")
    target_compile_options(eg_step PRIVATE $<$<C_COMPILER_ID:GNU>:-Wno-format-truncation>)
    target_link_libraries(eg_step PRIVATE eagre_shared eg_sys eagred_depends PkgConfig::CMOCKA)
    add_dependencies(eg_step eagred eagre_keeper)
endif()
if(TARGET eg_step AND CMAKE_BUILD_TYPE STREQUAL "Release" AND NOT EAGRE_FAULTPOINTS)
    # name:scenarios:seconds for each of them in each mode
    foreach(entry "produce:produce large wake single:0.6" "batch:batch rotate-batch:0.6"
                  "commit:commit abort:0.6" "rotate:rotate rotate-full rotate-new:0.6"
                  "read:read read-next read-first sleep:0.6" "retire:retire:1.5" "swap:swap swap-new:0.8"
                  "repair:repair:1.5")
        string(REGEX MATCH "(.*):(.*):(.*)" entry "${entry}")
        set(name step/${CMAKE_MATCH_1})
        set(seconds ${CMAKE_MATCH_3})
        string(REPLACE " " ";" scenarios "${CMAKE_MATCH_2}")
        add_test(NAME ${name} COMMAND eg_step --seconds ${seconds} ${scenarios})
        set_tests_properties(${name} PROPERTIES
            LABELS step TIMEOUT ${EG_TEST_TIMEOUT} SKIP_RETURN_CODE 77)
    endforeach()
endif()

# What libeagre shows to the world. A sanitized library has other needs, so it is left out there.
if(TARGET eagre_shared AND NOT EAGRE_SANITIZE)
    add_test(NAME abi/libeagre
        COMMAND ${CMAKE_SOURCE_DIR}/tests/abi/check-libeagre ${CMAKE_SOURCE_DIR}/include
                $<TARGET_FILE:eagre_shared> ${CMAKE_C_COMPILER})
    set_tests_properties(abi/libeagre PROPERTIES LABELS abi TIMEOUT ${EG_TEST_TIMEOUT})
endif()
