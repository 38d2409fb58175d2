"""nginx with nchan, a broadcaster in C: it sends a message that is posted to /publish to every WebSocket at /.

It has one worker instead of one per core, because wsbridge is also one process. Its ring of messages has the size of wsbridge's
history; it logs nothing.
"""

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from serving import free_port, listening

MODULE = Path("/usr/lib/nginx/modules/ngx_nchan_module.so")
NGINX = shutil.which("nginx", path="/usr/sbin:/usr/bin")

INSTALL = "nginx with nchan is not installed (Debian: apt-get install nginx-light libnginx-mod-nchan)."
MISSING = "" if NGINX and MODULE.exists() else INSTALL

CONFIGURATION = """
load_module {module};
daemon off;
worker_processes 1;
pid {folder}/pid;
error_log stderr emerg;
events {{ worker_connections 8192; multi_accept on; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{
            nchan_subscriber websocket;
            nchan_channel_id bench;
            nchan_subscriber_first_message newest;
        }}
        location /publish {{
            nchan_publisher http;
            nchan_channel_id bench;
            nchan_message_buffer_length 1000;
        }}
    }}
}}
"""


@contextmanager
def nginx(tools: Path, rate: int, size: int) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Run nginx, and post stamped messages to it; yield its process and its port."""
    with tempfile.TemporaryDirectory(prefix="wsbridge-bench-nginx-") as folder:
        port = free_port()
        file = Path(folder) / "nginx.conf"
        file.write_text(CONFIGURATION.format(module=MODULE, folder=folder, port=port))
        posting = [str(word) for word in (tools / "program", "post", port, rate, size)]
        with (
            listening([str(NGINX), "-p", folder, "-e", "stderr", "-c", str(file)], port) as server,
            subprocess.Popen(posting, stdin=subprocess.DEVNULL) as publisher,
        ):
            try:
                yield server, port
            finally:
                publisher.kill()
