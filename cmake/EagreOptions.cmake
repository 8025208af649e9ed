# Options, and the flags of every target. Presets (cmake/presets/) only set what is here.
option(EAGRE_TESTS "Build the tests (needs cmocka)" ON)
option(EAGRE_WERROR "Treat warnings as errors" ON)
option(EAGRE_FAULTPOINTS "Compile in the named race and crash points that tests use" OFF)
set(EAGRE_SANITIZE "" CACHE STRING "Sanitizers, as for -fsanitize= (address,undefined or thread)")

get_property(multi GLOBAL PROPERTY GENERATOR_IS_MULTI_CONFIG)
if(NOT multi AND NOT CMAKE_BUILD_TYPE)
    set(CMAKE_BUILD_TYPE Release CACHE STRING "Release or Debug" FORCE)
endif()

set(CMAKE_C_STANDARD 11)
set(CMAKE_C_STANDARD_REQUIRED ON)
set(CMAKE_C_EXTENSIONS ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
set(CMAKE_LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/lib)
set(CMAKE_ARCHIVE_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/lib)

include(CheckPIESupported)
check_pie_supported(LANGUAGES C)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)

# Assertions stay in: no NDEBUG. Debug information costs nothing at run time.
set(CMAKE_C_FLAGS_RELEASE "-O2 -g")
set(CMAKE_C_FLAGS_DEBUG "-Og -g")

add_compile_options(
    -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla -Wformat=2 -Wundef
    -Wwrite-strings -Wimplicit-fallthrough)
if(CMAKE_C_COMPILER_ID STREQUAL "GNU")
    add_compile_options(-Wcast-align=strict)
else()
    add_compile_options(-Wcast-align)
endif()
if(EAGRE_WERROR)
    add_compile_options(-Werror)
endif()

# Empty, so that a file's own "#define _GNU_SOURCE" is the same definition and no error.
add_compile_definitions(_GNU_SOURCE=)

# Hidden symbols that nobody can interpose, called without PLT: -fPIC then costs the fast path nothing.
# Sections, so that a program takes only what it uses of a library.
add_compile_options(
    -fvisibility=hidden -fno-semantic-interposition -fno-plt
    -ffunction-sections -fdata-sections
    -fmacro-prefix-map=${CMAKE_SOURCE_DIR}/=)
add_link_options(-Wl,--gc-sections -Wl,--as-needed -Wl,-z,relro -Wl,-z,now -Wl,-z,noexecstack)

if(EAGRE_SANITIZE)
    add_compile_options(
        -fsanitize=${EAGRE_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer)
    add_link_options(-fsanitize=${EAGRE_SANITIZE})
    if(EAGRE_SANITIZE MATCHES "thread" AND CMAKE_C_COMPILER_ID STREQUAL "GNU")
        # GCC warns that TSan does not model fences. We know: it is why tests/race runs without it too.
        add_compile_options(-Wno-tsan)
    endif()
else()
    add_compile_options(-fstack-protector-strong)
    if(CMAKE_BUILD_TYPE STREQUAL "Release")
        # Distributions' compilers may predefine another level.
        add_compile_options(-U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2)
    endif()
endif()

if(EAGRE_FAULTPOINTS)
    add_compile_definitions(EG_FAULTPOINTS)
endif()
