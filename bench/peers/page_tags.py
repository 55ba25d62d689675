"""All tags of a repository, a hundred at a time, from a `regwrap serve` that is started and ended here.

python3 page_tags.py REGWRAP STORAGE REPOSITORY NUMBER_OF_TAGS
"""

import json
import re
import subprocess
import sys
import urllib.request

regwrap, storage, repository, wanted = sys.argv[1:]
command = [regwrap, "serve", storage, "--addr", "127.0.0.1:0", "--quiet"]
with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
    try:
        assert server.stdout
        host = server.stdout.readline().strip()
        found, page = 0, f"/v2/{repository}/tags/list?n=100"
        while page:
            with urllib.request.urlopen(f"{host}{page}") as answer:
                found += len(json.load(answer)["tags"])
                more = re.match(r"<([^>]*)>", answer.headers.get("Link", ""))
                page = more[1] if more else ""
    finally:
        server.terminate()
sys.exit(0 if found == int(wanted) else f"{found} tags of {wanted}")
