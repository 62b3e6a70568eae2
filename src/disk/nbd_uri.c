#include "nbd_uri.h"

#include "buf.h"

#include <string.h>

static bool escape(struct buf *uri, const char *text)
{
    bool ok = true;

    for (const char *c = text; *c && ok; c++) {
        bool plain = (*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') || (*c >= '0' && *c <= '9');
        plain = plain || strchr("/-._~", *c);
        ok = plain ? buf_append(uri, c, 1) : buf_printf(uri, "%%%02X", (unsigned char)*c);
    }
    return ok;
}

char *nbd_uri(const char *export_name, const char *socket_path)
{
    AUTO_BUF struct buf uri = BUF_INIT;
    bool ok = buf_printf(&uri, "nbd+unix:///") && escape(&uri, export_name) && buf_printf(&uri, "?socket=") &&
              escape(&uri, socket_path);

    return ok ? buf_take_string(&uri) : NULL;
}
