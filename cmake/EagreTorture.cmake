# Torture: processes that die and stop at any time; then the history of all that they sent and saw is checked.
# eg-torture is the program; tests/fault uses its parts, too.
eg_test(torture torture)

# The product's fault points, for each of them must be reached: looked for again when a source changed.
file(GLOB sources CONFIGURE_DEPENDS
    ${CMAKE_SOURCE_DIR}/src/*/*.[ch] ${CMAKE_SOURCE_DIR}/daemon/*.[ch])
set(points ${CMAKE_BINARY_DIR}/gen/torture/fault_points.h)
set(list_points ${CMAKE_SOURCE_DIR}/tests/torture/list-fault-points)
add_custom_command(OUTPUT ${points} COMMAND ${list_points} ${points} ${sources}
    DEPENDS ${list_points} ${sources} VERBATIM)
target_sources(eg_helpers_torture PRIVATE ${points})
target_include_directories(eg_helpers_torture PRIVATE ${CMAKE_BINARY_DIR}/gen/torture)

eg_program(eg_torture eg-torture ${CMAKE_SOURCE_DIR}/tests/torture/main.c)
set_target_properties(eg_torture PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests/torture)
eg_test_settings(eg_torture)
target_link_libraries(eg_torture PRIVATE eg_helpers_torture eg_helpers_history eg_helpers_system)
foreach(program eagred eagre_keeper)
    if(TARGET ${program})
        add_dependencies(eg_torture ${program})
    endif()
endforeach()
# With one sanitizer, and as users have it: processes that race with each other show nothing more elsewhere.
if(TARGET eagred AND CMAKE_C_COMPILER_ID STREQUAL "GNU" AND NOT EAGRE_SANITIZE MATCHES "thread")
    foreach(seed 100 200)
        add_test(NAME torture/seed-${seed} COMMAND eg_torture --rounds 3 --seed ${seed})
        set_tests_properties(torture/seed-${seed} PROPERTIES
            LABELS torture TIMEOUT ${EG_TEST_TIMEOUT})
    endforeach()
    add_test(NAME torture/groups COMMAND eg_torture --rounds 4 --seed 300 --groups 1)
    set_tests_properties(torture/groups PROPERTIES LABELS torture TIMEOUT ${EG_TEST_TIMEOUT})
else()
    set(EG_TESTS_LEFT_OUT fault/every)
endif()
