/*
 * demo.h - `eagre-bench demo SOCKET TOPIC FILE [RATE]`, the part of tools/demo that must be fast and must
 * measure: FILE's stanzas (Debian control format: key = package name, value = the stanza) go through TOPIC
 * from two producer processes to two consumer processes, and what arrived is compared with the file.
 */
#ifndef EB_DEMO_H
#define EB_DEMO_H

int eb_demo_main(int argc, char **argv);

#endif
