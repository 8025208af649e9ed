# AddressSanitizer, LeakSanitizer and UndefinedBehaviorSanitizer; the first finding ends the program.
set(CMAKE_C_COMPILER gcc CACHE STRING "")
set(CMAKE_BUILD_TYPE Debug CACHE STRING "")
set(EAGRE_SANITIZE address,undefined CACHE STRING "")
set(EAGRE_FAULTPOINTS ON CACHE BOOL "")
