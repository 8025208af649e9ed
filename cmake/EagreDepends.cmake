# libeagre needs libc alone. What the daemon and the tests take besides is found here.
find_package(PkgConfig REQUIRED)

add_library(eagred_depends INTERFACE)

# eg_depend(name module macro): link the pkg-config module into the daemon if it is there.
function(eg_depend name module macro)
    pkg_check_modules(${name} QUIET IMPORTED_TARGET ${module})
    if(${name}_FOUND)
        target_link_libraries(eagred_depends INTERFACE PkgConfig::${name})
        target_compile_definitions(eagred_depends INTERFACE ${macro})
        message(STATUS "eagred: ${module} ${${name}_VERSION}")
    else()
        message(STATUS "eagred: without ${module}")
    endif()
endfunction()

if(NOT EAGRE_SANITIZE) # the sanitizers bring their own allocator
    eg_depend(JEMALLOC jemalloc HAVE_JEMALLOC)
endif()
eg_depend(HWLOC hwloc HAVE_HWLOC)
eg_depend(NUMA numa HAVE_LIBNUMA)
eg_depend(LMDB lmdb HAVE_LMDB)
eg_depend(URING liburing HAVE_LIBURING)
eg_depend(SYSTEMD libsystemd HAVE_LIBSYSTEMD)

if(EAGRE_TESTS)
    pkg_check_modules(CMOCKA IMPORTED_TARGET cmocka)
    if(NOT CMOCKA_FOUND)
        message(FATAL_ERROR "The tests need cmocka: install libcmocka-dev, or configure with -DEAGRE_TESTS=OFF")
    endif()
endif()
