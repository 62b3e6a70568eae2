/* Names of elements that the writer and the reader share; docs/files.md has the whole tree. */
#pragma once

/* Hyper-V names its devices' elements by the GUID of their kind. */
#define XML_IDE    "_83f8638b-8dca-4152-9eda-2ca8b33039b4_"
#define XML_SCSI   "_d422512d-2bf2-4752-809d-7b82b5fcb1b4_"
#define XML_VIRTIO "settings/qemu/virtio" /* it has no virtio */

/* Each controller takes so many drives: slot = controller * drives + drive. */
#define XML_IDE_DRIVES 2U

#define XML_TYPE_DISK  "VHD"
#define XML_TYPE_CDROM "ISO"
