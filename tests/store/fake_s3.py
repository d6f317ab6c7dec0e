"""A small S3 store for tests: keeps objects in memory, checks every signature, and misbehaves when told to.

    python3 fake_s3.py [--bucket values] [--access_key K] [--secret_key S] [--cert PEM]

Prints its port. Every line on standard input is an order, a JSON object, answered by a line; it ends with its input.
Written from AWS's documents, not from the client's code: signatures are computed anew from what came over the wire.

    {"do": "rule", "method": "PUT", "contains": "ab/", "times": 2, "how": "error", "status": 503, "code": "SlowDown"}

How a rule meets a request: error (status, code), answer (status, body), cut (half of the content, then nothing), lost (done,
and no answer), header (done, and a header of so many bytes), hang (no answer until {"do": "release"}), hold (done once
released), corrupt (a byte is changed), lie (another checksum), whole (ranges are ignored). Other orders: rules (forget all),
release, held (waits until a request is), keys, uploads, counts, age (key, seconds), clock (seconds ahead), credentials, page
(keys a page), conditions (how: kept, refused, or empty: ignored), put (key, text), reset.
"""

import argparse
import base64
import collections
import datetime
import hashlib
import hmac
import http.server
import itertools
import json
import re
import ssl
import sys
import threading
import time
import urllib.parse
import xml.etree.ElementTree
from xml.sax.saxutils import escape

SPACE = "http://s3.amazonaws.com/doc/2006-03-01/"


class State:
    def __init__(self, options):
        self.options = options
        self.lock = threading.Condition()
        self.ids = itertools.count()
        self.held = 0
        self.released = 0
        self.reset()

    def reset(self):
        """As if nobody had been here."""
        self.bucket = self.options.bucket
        self.access_key, self.secret_key = self.options.access_key, self.options.secret_key
        self.token = ""
        self.objects = {}  # key -> (bytes, time)
        self.uploads = {}  # id -> {key, time, parts}
        self.rules = []
        self.counts = collections.Counter()
        self.ahead = 0
        self.page = 1000
        self.conditions = "kept"

    def now(self):
        return time.time() + self.ahead

    def rule_for(self, method, path):
        with self.lock:
            for rule in self.rules:
                if rule["method"] in (method, "*") and rule.get("contains", "") in path:
                    rule["times"] -= 1
                    if rule["times"] <= 0:
                        self.rules.remove(rule)
                    return rule
        return {"how": "serve"}

    def wait_for_release(self):
        with self.lock:
            self.held += 1
            number = self.released
            self.lock.notify_all()
            self.lock.wait_for(lambda: self.released > number)
            self.held -= 1
            self.lock.notify_all()


class Refusal(Exception):
    def __init__(self, status, code):
        super().__init__(code)
        self.status, self.code = status, code


def http_date(seconds):
    moment = datetime.datetime.fromtimestamp(int(seconds), datetime.UTC)
    return moment.strftime("%a, %d %b %Y %H:%M:%S GMT")


def xml_date(seconds):
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


def encoded(text):
    return urllib.parse.quote(text, safe="-._~")


def signature(secret, method, target, headers, signed, payload_hash, region):
    """Of AWS Signature Version 4, from what was received."""
    path, _, query = target.partition("?")
    pairs = [part.partition("=")[::2] for part in query.split("&") if part]
    pairs = sorted(
        (encoded(urllib.parse.unquote(n)), encoded(urllib.parse.unquote(v))) for n, v in pairs
    )
    lines = [f"{name}:{' '.join(headers.get(name, '').split())}\n" for name in signed]
    canonical = "\n".join(
        [
            method,
            path,
            "&".join(f"{n}={v}" for n, v in pairs),
            "".join(lines),
            ";".join(signed),
            payload_hash,
        ]
    )
    moment = headers["x-amz-date"]
    scope = f"{moment[:8]}/{region}/s3/aws4_request"
    to_sign = "\n".join(
        ["AWS4-HMAC-SHA256", moment, scope, hashlib.sha256(canonical.encode()).hexdigest()]
    )
    key = f"AWS4{secret}".encode()
    for word in (moment[:8], region, "s3", "aws4_request"):
        key = hmac.new(key, word.encode(), hashlib.sha256).digest()
    return hmac.new(key, to_sign.encode(), hashlib.sha256).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    state: State

    def log_message(self, *_):
        pass

    def date_time_string(self, timestamp=None):
        return http_date(self.state.now() if timestamp is None else timestamp)

    # --- What every request passes ---

    def handle_request(self):
        self.content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        rule = self.state.rule_for(self.command, self.path)
        try:
            if rule["how"] == "hang":
                self.state.wait_for_release()
                self.close_connection = True
                return
            if rule["how"] == "hold":
                self.state.wait_for_release()
            if rule["how"] == "error":
                raise Refusal(rule["status"], rule["code"])
            if rule["how"] == "answer":
                self.answer(rule["status"], rule["body"].encode())
                return
            self.rule = rule
            self.authorise()
            self.serve()
        except Refusal as refusal:
            body = f"<?xml version='1.0'?><Error><Code>{refusal.code}</Code><Message>no</Message></Error>"
            self.answer(refusal.status, body.encode())

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = handle_request

    def authorise(self):
        state = self.state
        headers = {name.lower(): value for name, value in self.headers.items()}
        match = re.fullmatch(
            r"AWS4-HMAC-SHA256 Credential=([^/]+)/(\d{8})/([^/]+)/s3/aws4_request, ?SignedHeaders=([^,]+), ?Signature=([0-9a-f]{64})",
            headers.get("authorization", ""),
        )
        if not match:
            raise Refusal(403, "AccessDenied")
        access_key, _, region, signed, given = match.groups()
        signed = signed.split(";")
        if access_key != state.access_key:
            raise Refusal(403, "InvalidAccessKeyId")
        if headers.get("x-amz-security-token", "") != state.token:
            raise Refusal(400, "InvalidToken")
        must = {"host"} | {name for name in headers if name.startswith("x-amz-")}
        if signed != sorted(signed) or not must <= set(signed):
            raise Refusal(403, "AccessDenied")
        expected = signature(
            state.secret_key,
            self.command,
            self.path,
            headers,
            signed,
            headers["x-amz-content-sha256"],
            region,
        )
        if given != expected:
            raise Refusal(403, "SignatureDoesNotMatch")
        moment = datetime.datetime.strptime(headers["x-amz-date"] + "+0000", "%Y%m%dT%H%M%SZ%z")
        if abs(moment.timestamp() - state.now()) > 900 and not state.ahead:
            raise Refusal(403, "RequestTimeTooSkewed")
        if headers["x-amz-content-sha256"] != hashlib.sha256(self.content).hexdigest():
            raise Refusal(400, "XAmzContentSHA256Mismatch")
        checksum = headers.get("x-amz-checksum-sha256")
        if checksum and base64.b64decode(checksum) != hashlib.sha256(self.content).digest():
            raise Refusal(400, "BadDigest")

    def serve(self):
        path, _, query = self.path.partition("?")
        bucket, _, self.key = urllib.parse.unquote(path).lstrip("/").partition("/")
        if self.headers["Host"].startswith(f"{self.state.bucket}."):  # or in the path
            bucket, self.key = self.state.bucket, urllib.parse.unquote(path).lstrip("/")
        self.query = dict(urllib.parse.parse_qsl(query, keep_blank_values=True))
        if bucket != self.state.bucket:
            raise Refusal(404, "NoSuchBucket")
        name = self.command.lower()
        if not self.key:
            name = "uploads" if "uploads" in self.query else "list"
        elif "uploads" in self.query:
            name = "create"
        elif "uploadId" in self.query:
            name = {"PUT": "part", "POST": "complete", "DELETE": "abort"}[self.command]
        self.state.counts[name] += 1
        with self.state.lock:
            status, body, headers = getattr(self, f"s3_{name}")()
        if self.rule["how"] == "lie":
            headers["x-amz-checksum-sha256"] = base64.b64encode(bytes(32)).decode()
        if self.rule["how"] == "corrupt":
            body = bytes([body[0] ^ 1]) + body[1:]
        self.answer(status, body, headers)

    def answer(self, status, body=b"", headers=None):
        rule = getattr(self, "rule", {"how": "serve"})
        how = rule["how"]
        self.rule = {"how": "serve"}
        if how == "lost":
            self.close_connection = True
            return
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if how == "header":
            self.send_header("x-amz-meta-long", "x" * rule["bytes"])
        if "Content-Length" not in (headers or {}):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if how == "cut":
            body = body[: len(body) // 2]
            self.close_connection = True
        self.wfile.write(body)

    # --- Operations: status, content, headers; under the lock ---

    def object(self):
        if self.key not in self.state.objects:
            raise Refusal(404, "NoSuchKey")
        return self.state.objects[self.key]

    def upload(self):
        upload = self.state.uploads.get(self.query["uploadId"])
        if upload is None or upload["key"] != self.key:
            raise Refusal(404, "NoSuchUpload")
        return upload

    def s3_put(self):
        if self.headers.get("If-None-Match") == "*" and self.state.conditions:
            if self.state.conditions == "refused":
                raise Refusal(501, "NotImplemented")
            if self.key in self.state.objects:
                raise Refusal(412, "PreconditionFailed")
        self.state.objects[self.key] = (self.content, self.state.now())
        return 200, b"", {"ETag": f'"{hashlib.md5(self.content).hexdigest()}"'}

    def s3_head(self):
        content, modified = self.object()
        return 200, b"", {"Content-Length": str(len(content)), "Last-Modified": http_date(modified)}

    def s3_get(self):
        content, modified = self.object()
        headers = {"Last-Modified": http_date(modified)}
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if not wanted or self.rule["how"] == "whole":
            return 200, content, headers
        first, last = int(wanted[1]), min(int(wanted[2]), len(content) - 1)
        if first >= len(content):
            raise Refusal(416, "InvalidRange")
        headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
        return 206, content[first : last + 1], headers

    def s3_delete(self):
        self.state.objects.pop(self.key, None)
        return 204, b"", {}

    def s3_list(self):
        prefix, after = self.query.get("prefix", ""), self.query.get("start-after", "")
        if "continuation-token" in self.query:
            # Of characters that have to be encoded in a query.
            after = self.query["continuation-token"].removeprefix("+/= &?%").removesuffix("~")
        keys = [key for key in sorted(self.state.objects) if key.startswith(prefix) and key > after]
        page, more = keys[: self.state.page], len(keys) > self.state.page
        contents = "".join(
            f"<Contents><Key>{escape(key)}</Key><LastModified>{xml_date(self.state.objects[key][1])}</LastModified>"
            f"<Size>{len(self.state.objects[key][0])}</Size></Contents>"
            for key in page
        )
        token = (
            f"<NextContinuationToken>{escape('+/= &?%' + page[-1] + '~')}</NextContinuationToken>"
            if more
            else ""
        )
        body = f"<ListBucketResult xmlns='{SPACE}'>{contents}<IsTruncated>{str(more).lower()}</IsTruncated>{token}</ListBucketResult>"
        return 200, body.encode(), {"Content-Type": "application/xml"}

    def s3_uploads(self):
        uploads = "".join(
            f"<Upload><Key>{escape(upload['key'])}</Key><UploadId>{escape(identity)}</UploadId>"
            f"<Initiated>{xml_date(upload['time'])}</Initiated></Upload>"
            for identity, upload in self.state.uploads.items()
            if upload["key"].startswith(self.query.get("prefix", ""))
        )
        return (
            200,
            f"<ListMultipartUploadsResult xmlns='{SPACE}'>{uploads}</ListMultipartUploadsResult>".encode(),
            {},
        )

    def s3_create(self):
        identity = f"up/load+{next(self.state.ids)}&=<"
        self.state.uploads[identity] = {"key": self.key, "time": self.state.now(), "parts": {}}
        body = f"<InitiateMultipartUploadResult xmlns='{SPACE}'><UploadId>{escape(identity)}</UploadId></InitiateMultipartUploadResult>"
        return 200, body.encode(), {}

    def s3_part(self):
        self.upload()["parts"][int(self.query["partNumber"])] = self.content
        checksum = base64.b64encode(hashlib.sha256(self.content).digest()).decode()
        return (
            200,
            b"",
            {
                "ETag": f'"{hashlib.md5(self.content).hexdigest()}"',
                "x-amz-checksum-sha256": checksum,
            },
        )

    def s3_complete(self):
        parts = self.upload()["parts"]
        named = xml.etree.ElementTree.fromstring(self.content).findall(f"{{{SPACE}}}Part")
        numbers = [int(part.find(f"{{{SPACE}}}PartNumber").text) for part in named]
        tags = [part.find(f"{{{SPACE}}}ETag").text for part in named]
        if numbers != sorted(parts) or tags != [
            f'"{hashlib.md5(parts[n]).hexdigest()}"' for n in numbers
        ]:
            raise Refusal(400, "InvalidPart")
        self.state.objects[self.key] = (b"".join(parts[n] for n in numbers), self.state.now())
        del self.state.uploads[self.query["uploadId"]]
        return 200, f"<CompleteMultipartUploadResult xmlns='{SPACE}'/>".encode(), {}

    def s3_abort(self):
        self.upload()
        del self.state.uploads[self.query["uploadId"]]
        return 204, b"", {}


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_):
        """Clients leave in the middle on purpose."""


def obey(state, order):
    """The answer to one order."""
    do = order.pop("do")
    with state.lock:
        if do == "rule":
            state.rules.append({"times": 1, "method": "*", **order})
        elif do == "rules":
            state.rules.clear()
        elif do == "release":
            state.released += 1
            state.lock.notify_all()
        elif do == "held":
            return state.lock.wait_for(lambda: state.held >= order.get("count", 1), timeout=20)
        elif do == "keys":
            return sorted(state.objects)
        elif do == "uploads":
            return sorted(upload["key"] for upload in state.uploads.values())
        elif do == "counts":
            return dict(state.counts)
        elif do == "age":
            for key, (content, modified) in state.objects.items():
                if order["key"] in key:
                    state.objects[key] = (content, modified - order["seconds"])
            for upload in state.uploads.values():
                if order["key"] in upload["key"]:
                    upload["time"] -= order["seconds"]
        elif do == "clock":
            state.ahead = order["seconds"]
        elif do == "credentials":
            state.access_key, state.secret_key = order["access_key"], order["secret_key"]
            state.token = order.get("token", "")
        elif do == "conditions":
            state.conditions = order["how"]
        elif do == "page":
            state.page = order["keys"]
        elif do == "reset":
            state.released += 1
            state.lock.notify_all()
            state.lock.wait_for(lambda: state.held == 0)
            state.reset()
        elif do == "put":
            state.objects[order["key"]] = (order["text"].encode(), state.now())
        else:
            raise ValueError(do)
    return True


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bucket", default="values")
    parser.add_argument("--access_key", default="AKIDTEST")
    parser.add_argument("--secret_key", default="secret/+key")
    parser.add_argument("--cert", help="certificate and key, for HTTPS")
    options = parser.parse_args()
    Handler.state = State(options)
    server = Server(("127.0.0.1", 0), Handler)
    if options.cert:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(options.cert)
        server.socket = context.wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_address[1], flush=True)
    for line in sys.stdin:
        print(json.dumps(obey(Handler.state, json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
