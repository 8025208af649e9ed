#include "eagre/eagre.h"

const char *eagre_version(void) { return EAGRE_VERSION_STRING; }
