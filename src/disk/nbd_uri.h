/* How a disk that is served on a unix socket is named to other programs. */
#pragma once

/* nbd+unix:///NAME?socket=PATH; all but the plainest characters are escaped. Owned; NULL when out of memory.
 */
char *nbd_uri(const char *export_name, const char *socket_path);
