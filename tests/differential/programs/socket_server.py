# ruff: noqa
import http.client
import http.server
import socketserver
import threading
import urllib.request
import urllib.error


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = f"{self.command} {self.path}".encode() * 1000
        self.send_response(404 if "missing" in self.path else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "8")
        self.end_headers()
        self.wfile.write(b"%08d" % len(body))

    def log_message(self, *args):
        pass


with http.server.ThreadingHTTPServer(("localhost", 0), Handler) as server:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    host, port = server.server_address[:2]
    connection = http.client.HTTPConnection(host, port)
    for path in ("/one", "/two"):
        connection.request("GET", path)
        response = connection.getresponse()
        print(response.status, len(response.read()))
    connection.request("POST", "/", b"x" * 1_000_000)
    print(connection.getresponse().read())
    connection.close()
    try:
        urllib.request.urlopen(f"http://localhost:{port}/missing")
    except urllib.error.HTTPError as error:
        print(error.code, len(error.read()))
    server.shutdown()
    thread.join()


class Lines(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            self.wfile.write(line[::-1])


class Datagrams(socketserver.DatagramRequestHandler):
    def handle(self):
        self.wfile.write(self.rfile.read().upper())


import socket

with socketserver.ForkingTCPServer(("127.0.0.1", 0), Lines) as server:
    thread = threading.Thread(target=server.handle_request)
    thread.start()
    with socket.create_connection(server.server_address) as client:
        client.sendall(b"abc\ndef\n")
        client.shutdown(socket.SHUT_WR)
        print(client.makefile("rb").read())
    thread.join()
with socketserver.UDPServer(("127.0.0.1", 0), Datagrams) as server:
    thread = threading.Thread(target=server.handle_request)
    thread.start()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.sendto(b"datagram", server.server_address)
        print(client.recv(100))
    thread.join()
