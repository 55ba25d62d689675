"""regwrap's selection without packing: the files that a bundle of the list would have, counted.

python choose_files.py ARCHIVE_STORAGE IMAGES.LIST

There is no such command, since `regwrap package` does it on the way; this is the function that it calls.
"""

import sys
from pathlib import Path

from regwrap.bundle.select import select_images
from regwrap.lists.imagelist import read_images
from regwrap.storage.store import Storage

images = read_images(sys.argv[2], sys.stdin.buffer)
selection = select_images(Storage(Path(sys.argv[1])), images.entries)
sys.stdout.write(f"{sum(1 for _ in selection.contents.members)} files\n")
