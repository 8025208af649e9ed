# Install rules, eagre.pc, and the CMake package with eagre::eagre and eagre::eagre_static.
include(CMakePackageConfigHelpers)

foreach(program eagred eagre_keeper eagre_cli eagre_bench)
    if(TARGET ${program})
        install(TARGETS ${program} RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
    endif()
endforeach()

file(GLOB pages CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/docs/man/*.[0-9])
foreach(page IN LISTS pages)
    cmake_path(GET page EXTENSION LAST_ONLY section)
    string(SUBSTRING ${section} 1 -1 section)
    install(FILES ${page} DESTINATION ${CMAKE_INSTALL_MANDIR}/man${section})
endforeach()

if(TARGET eagre_shared)
    install(TARGETS eagre_shared eagre_static EXPORT eagreTargets
        LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}
        ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
    install(DIRECTORY ${CMAKE_SOURCE_DIR}/include/eagre DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}
        FILES_MATCHING PATTERN "*.h")

    set(package ${CMAKE_INSTALL_LIBDIR}/cmake/eagre)
    install(EXPORT eagreTargets NAMESPACE eagre:: DESTINATION ${package})
    configure_package_config_file(${CMAKE_SOURCE_DIR}/cmake/eagreConfig.cmake.in
        ${CMAKE_BINARY_DIR}/eagreConfig.cmake INSTALL_DESTINATION ${package})
    # Before 1.0 a minor version may change the interface.
    write_basic_package_version_file(${CMAKE_BINARY_DIR}/eagreConfigVersion.cmake
        COMPATIBILITY SameMinorVersion)
    install(FILES ${CMAKE_BINARY_DIR}/eagreConfig.cmake ${CMAKE_BINARY_DIR}/eagreConfigVersion.cmake
        DESTINATION ${package})

    # Relative, so that the installed tree can be moved and --prefix is obeyed.
    file(RELATIVE_PATH PC_TO_PREFIX ${CMAKE_INSTALL_FULL_LIBDIR}/pkgconfig ${CMAKE_INSTALL_PREFIX})
    configure_file(${CMAKE_SOURCE_DIR}/cmake/eagre.pc.in ${CMAKE_BINARY_DIR}/eagre.pc @ONLY)
    install(FILES ${CMAKE_BINARY_DIR}/eagre.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
endif()

configure_file(${CMAKE_SOURCE_DIR}/packaging/systemd/eagred.service.in ${CMAKE_BINARY_DIR}/eagred.service @ONLY)
install(FILES ${CMAKE_BINARY_DIR}/eagred.service DESTINATION lib/systemd/system)
install(FILES ${CMAKE_SOURCE_DIR}/packaging/systemd/eagre.sysusers.conf
    DESTINATION lib/sysusers.d RENAME eagre.conf)
if(EXISTS ${CMAKE_SOURCE_DIR}/packaging/eagred.conf)
    install(FILES ${CMAKE_SOURCE_DIR}/packaging/eagred.conf DESTINATION ${CMAKE_INSTALL_DOCDIR}/examples)
endif()
