"""Ask a container engine's socket whether it is there: `ping.py /path/to.sock`, exit 0 if it answers OK.

Standard library only: it runs before our environment exists, on machines without curl.
"""

import socket
import sys

REQUEST = b"GET /_ping HTTP/1.0\r\nHost: engine\r\n\r\n"


def answers(path: str, timeout_s: float = 5.0) -> bool:
    """True if an engine (Docker, or Podman's Docker-compatible service) answers `/_ping` on this socket."""
    try:
        with socket.socket(socket.AF_UNIX) as link:
            link.settimeout(timeout_s)
            link.connect(path)
            link.sendall(REQUEST)
            answer = b""
            while block := link.recv(4096):
                answer += block
    except OSError:
        return False
    return answer.split(b"\r\n", 1)[0].split()[1:2] == [b"200"]


if __name__ == "__main__":
    sys.exit(0 if answers(sys.argv[1]) else 1)
