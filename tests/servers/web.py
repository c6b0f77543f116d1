"""A web server of static files on loopback, with faults to set."""

import gzip
import http.server
import io
import re
import threading
from pathlib import Path
from urllib.parse import quote


class WebServer:
    """Serves a folder and lists its folders, as any web server of static files does.

    Attributes:
        url: Where it is.
        answers: Status to answer for a path, instead of the file.
        lists: Whether a folder is shown as a page of links.
        ranges: Whether a part of a file can be asked for.
        chunked: Whether files are sent without saying how long they are.
        gzipped: End of the names of files that are sent compressed, whatever was asked for.
        ranges_of_gzipped: Whether a part of those is one of the compressed bytes.
        links: Further links on the page of the top folder.
        requests: Method and path of each request so far.
    """

    def __init__(self, folder: Path, *, lists: bool = True) -> None:
        self.answers: dict[str, int] = {}
        self.lists = lists
        self.ranges = True
        self.chunked = False
        self.gzipped = ".none"
        self.ranges_of_gzipped = False
        self.links: list[str] = []
        self.requests: list[tuple[str, str]] = []
        outer = self

        class Handler(http.server.SimpleHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def __init__(self, *args):
                super().__init__(*args, directory=str(folder))

            def send_head(self):
                outer.requests.append((self.command, self.path))
                if self.path in outer.answers:
                    self.send_error(outer.answers[self.path])
                    return None
                file, asked = Path(self.translate_path(self.path)), self.headers.get("Range", "")
                part = re.fullmatch(r"bytes=(\d+)-(\d*)", asked)
                if part and outer.ranges_of_gzipped and file.name.endswith(outer.gzipped):
                    content = gzip.compress(file.read_bytes())
                    return self.send_part(content, int(part[1]), int(part[2]), "gzip")
                if file.is_file() and (outer.chunked or file.name.endswith(outer.gzipped)):
                    return self.send_without_length(file)
                if part and outer.ranges and file.is_file():
                    return self.send_part(file.read_bytes(), int(part[1]), int(part[2] or 1 << 62))
                return super().send_head()

            def send_part(self, content, first, last, encoding="identity"):
                part = content[first : last + 1]
                self.send_response(206)
                self.send_header("Content-Encoding", encoding)
                self.send_header("Content-Length", str(len(part)))
                end = first + len(part) - 1
                self.send_header("Content-Range", f"bytes {first}-{end}/{len(content)}")
                self.end_headers()
                return io.BytesIO(part)

            def send_without_length(self, file):
                content = file.read_bytes()
                self.send_response(200)
                if file.name.endswith(outer.gzipped):
                    content = gzip.compress(content)
                    self.send_header("Content-Encoding", "gzip")
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                return io.BytesIO(b"%x\r\n%b\r\n0\r\n\r\n" % (len(content), content))

            def list_directory(self, path):
                found = sorted(Path(path).iterdir()) if outer.lists else []
                links = [quote(each.name) + "/" * each.is_dir() for each in found]
                links += outer.links if self.path == "/" else []
                page = "".join(f'<a href="{each}">x</a>\n' for each in links)
                self.send_response(200)
                self.send_header("Content-Type", "text/html")
                self.send_header("Content-Length", str(len(page)))
                self.end_headers()
                return io.BytesIO(page.encode())

            def log_message(self, *args):
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
