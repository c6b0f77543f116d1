"""A web server of static files on loopback, with faults to set."""

import http.server
import io
import re
import threading
from pathlib import Path


class WebServer:
    """Serves a folder and lists its folders, as any web server of static files does.

    Attributes:
        url: Where it is.
        answers: Status to answer for a path, instead of the file.
        lists: Whether a folder is shown as a page of links.
        ranges: Whether a part of a file can be asked for.
        requests: Method and path of each request so far.
    """

    def __init__(self, folder: Path, *, lists: bool = True) -> None:
        self.answers: dict[str, int] = {}
        self.lists = lists
        self.ranges = True
        self.requests: list[tuple[str, str]] = []
        outer = self

        class Handler(http.server.SimpleHTTPRequestHandler):
            def __init__(self, *args):
                super().__init__(*args, directory=str(folder))

            def send_head(self):
                outer.requests.append((self.command, self.path))
                if self.path in outer.answers:
                    self.send_error(outer.answers[self.path])
                    return None
                file, asked = Path(self.translate_path(self.path)), self.headers.get("Range", "")
                part = re.fullmatch(r"bytes=(\d+)-(\d*)", asked)
                if part and outer.ranges and file.is_file():
                    return self.send_part(file.read_bytes(), int(part[1]), int(part[2] or 1 << 62))
                return super().send_head()

            def send_part(self, content, first, last):
                part = content[first : last + 1]
                self.send_response(206)
                self.send_header("Content-Length", str(len(part)))
                end = first + len(part) - 1
                self.send_header("Content-Range", f"bytes {first}-{end}/{len(content)}")
                self.end_headers()
                return io.BytesIO(part)

            def list_directory(self, path):
                if outer.lists:
                    return super().list_directory(path)
                self.send_response(200)
                self.send_header("Content-Type", "text/html")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return None

            def log_message(self, *args):
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
