"""The directives of functions: `function`, `version`, `functions`, and who passes to them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxy.conf.directive import (
    FUNCTION,
    FUNCTIONS,
    HTTP,
    LOCATION,
    LOCATION_IF,
    SERVER,
    VERSION,
    directive,
)
from proxy.conf.values import Duration, Enum, Flag, Int, Size, Word
from proxy.functions import grammar as g
from proxy.functions.queue.directives import read_url
from proxy.functions.queue.words import URL
from proxy.functions.values import Balance, Limits
from proxy.upstream.sticky import read_sticky
from proxy.upstream.words import Queue, read_queue

if TYPE_CHECKING:
    from proxy.conf.inherit import Block
    from proxy.conf.lexer import Token

BOTH = FUNCTION | VERSION
HANDLERS = ("command", "python", "fork", "openwhisk", "lambda", "static", "provider")
WITH_PYTHON = ("python", "openwhisk", "lambda", "fork")


def kinds_of(block: Block) -> list[str]:
    return [name for name in HANDLERS if block.own(name) is not None]


def check_function(block: Block) -> None:
    """What can only be said when the block is closed. Raises ConfError."""
    name, kinds = block.args[0], kinds_of(block)
    arms = block.find("version")
    if not kinds:
        bare = [it for it in arms if not kinds_of(it)]
        if bare or not arms:
            raise block.error(f'function "{name}" has nothing to run: no "python", no "command", …')
    if kinds and any(it.args[0] == "v1" for it in arms):
        raise block.error(f'function "{name}" itself is version "v1"')
    _check_arm(block, f'function "{name}"', kinds)


def check_version(block: Block) -> None:
    """The same for a version."""
    name = f'version "{block.args[0]}"'
    _check_arm(block, name, kinds_of(block))
    if block.own("weight") and block.own("mirror"):
        raise block.error(f'{name} has "mirror": it can have no "weight"')


def _check_arm(block: Block, name: str, kinds: list[str]) -> None:
    if len(kinds) > 1:
        raise block.error(f'{name} has both "{kinds[0]}" and "{kinds[1]}"')
    if block.own("interpreter") is not None and block.own("venv") is not None:
        raise block.error(f'{name} has both "interpreter" and "venv"')
    for word in ("interpreter", "venv"):
        if block.own(word) is not None and kinds and kinds[0] not in WITH_PYTHON:
            raise block.error(f'"{word}" is for "python" only')


def read_function_pass(args: list[Token], block: Block) -> str:
    """The name of a function; who has it is known when the whole conf is read."""
    return args[0]


directive("function", HTTP, read=g.read_name, least=1, most=1, many=True, block=FUNCTION,
          inherit=False, check=check_function, syntax="NAME",
          doc="A function: it is started when it is asked, watched, and asked by function_pass.")
directive("version", FUNCTION, read=g.read_version_name, least=1, most=1, many=True,
          block=VERSION, inherit=False, check=check_version, syntax="NAME",
          doc="Another arm of the function, which gets a share of its requests; what it does not"
          " say it has from the function.")
directive("namespace", FUNCTION, read=g.read_namespace, least=1, most=1, inherit=False,
          syntax="NAME", doc="The tenant; openfaas-fn by default.")
directive("labels", FUNCTION, read=g.read_labels, least=1, many=True, inherit=False,
          syntax="KEY=VALUE …", doc="Labels; those of OpenFaaS' scaling mean the same settings.")
directive("annotation", FUNCTION, read=g.read_annotation, least=2, most=2, many=True,
          inherit=False, syntax="KEY VALUE", doc="An annotation; Knative's scaling is understood.")
directive("async", FUNCTION, Flag(), inherit=False,
          doc="Answers 202 and calls the function from the queue.")
directive("schedule", FUNCTION, read=g.read_schedule, least=1, most=1, many=True, inherit=False,
          syntax='"MINUTE HOUR DAY MONTH WEEKDAY"',
          doc="Calls the function by the clock, in cron's five fields.")
directive("sticky", FUNCTION, read=read_sticky, least=1, most=None, inherit=False,
          syntax="cookie=NAME [expires=TIME] [domain=NAME] [path=PATH] [httponly] [secure] "
          "[samesite=strict|lax|none] | header=NAME | variable=$NAME | claim=NAME | address "
          "[tag_header=NAME] [tag_cookie=NAME]",
          doc="Who was sent to a version stays with it while its share allows; a tag in that header"
          " or cookie, or in Knative-Serving-Tag, picks one.")

# -- what runs ------------------------------------------------------------------------------------
directive("command", BOTH, read=g.read_command, inherit=False, syntax="PROGRAM [ARGUMENT …]",
          doc="A server that listens on 127.0.0.1:$PORT or on the Unix socket $SOCKET.")
directive("python", BOTH, read=g.read_python, least=1, most=1, inherit=False,
          syntax="FILE:CALLABLE",
          doc="A handler(event, context), or a WSGI or ASGI application (WebSockets, too).")
directive("fork", BOTH, read=g.read_command, inherit=False, syntax="PROGRAM [ARGUMENT …]",
          doc="A process per request: the body is its input, its output the answer.")
directive("openwhisk", BOTH, read=g.read_openwhisk, least=1, most=1, inherit=False, syntax="FILE",
          doc="An OpenWhisk action.")
directive("lambda", BOTH, read=g.read_lambda, least=1, most=1, inherit=False,
          syntax="FILE.HANDLER", doc="An AWS Lambda handler in Python.")
directive("static", BOTH, read=g.read_static, inherit=False, syntax="ADDRESS …",
          doc="Replicas that run already, by address; nothing is started.")
directive("provider", BOTH, read=g.read_provider, inherit=False, syntax="NAME [ARGUMENT …]",
          doc="Replicas that an installed provider makes, such as openfaas URL.")
directive("interpreter", BOTH, Word(),
          doc="The Python (3.9 or newer) that runs the handler; Headrace's own by default.")
directive("venv", BOTH, Word(), doc="The virtual environment whose Python runs the handler.")
directive("env", BOTH, read=g.read_env, least=2, most=2, many=True,
          syntax="NAME VALUE", doc="Sets an environment variable of the function.")
directive("working_directory", BOTH, Word(),
          doc="Where the function runs; the prefix by default.")
directive("user", BOTH, Word(), doc="The user it runs as; the gateway's by default.")
directive("limits", BOTH, read=g.read_limits, least=1, most=4, default=Limits(),
          syntax="[memory=SIZE] [cpu=CORES] [nofile=NUMBER] [nproc=NUMBER]",
          doc="What one replica may use.")
directive("secrets", BOTH, read=g.read_secrets, many=True, syntax="NAME …",
          doc="Secrets that a replica finds as files below $SECRETS_PATH; updates reach it there.")
directive("balance", BOTH, read=g.read_balance, least=1, most=5, default=Balance(),
          syntax="least_in_flight | round_robin | hash KEY [max_fails=NUMBER] [fail_timeout=TIME] "
          "[slow_start=TIME]",
          doc="Which replica is asked: of two taken at random the one with fewer requests, each in"
          " turn, or by consistent hash the same one for the same key.")
directive("ready", BOTH, read=g.read_ready, least=1, most=4,
          syntax="PATH | grpc [service=NAME] [interval=TIME] [timeout=TIME]",
          doc="The path that must answer 2xx or 3xx before a replica is sent requests; grpc: it "
          "must say by grpc.health.v1 that it is serving.")
directive("start_timeout", BOTH, Duration(), default="60s",
          doc="How long a replica may take until it is ready.")
directive("drain_timeout", BOTH, Duration(), default="30s",
          doc="How long the requests of a replica may take that is to be stopped.")
directive("watch", BOTH, Flag(), default="off", doc="Renews replicas when the file changes.")

# -- which version --------------------------------------------------------------------------------
directive("weight", BOTH, Int(0, 10_000), inherit=False,
          doc="Its share of the requests; the function itself has 100 less the others' by default.")
directive("tag", BOTH, Word(), inherit=False,
          doc="The word that picks this version, in the field Knative-Serving-Tag.")
directive("mirror", VERSION, read=g.read_mirror, least=1, most=1, inherit=False, syntax="PERCENT",
          doc="Gets copies of this share of the requests; its answers are dropped.")

# -- how much at once -----------------------------------------------------------------------------
directive("concurrency", BOTH, Int(0, 100_000), default="0",
          doc="How many requests one replica is given at once; 0: no bound.")
directive("queue", BOTH, read=read_queue, least=1, most=3, default=Queue(),
          syntax="[size=NUMBER] [bytes=SIZE] [wait=TIME]",
          doc="How many requests may wait for a replica, what is held of them, and how long.")
directive("timeout", BOTH, Duration(), default="60s",
          doc="How long a request may take until its answer ends; streams are not cut by it.")
directive("http_version", BOTH, Enum("1.1", "2"), default="1.1",
          doc="What its replicas speak on $PORT; 2 is for gRPC servers, without TLS.")
directive("count_streams", BOTH, Flag(), default="on",
          doc="Whether WebSockets and streams count as load when the function is scaled.")

# -- how many replicas; the words, defaults and bounds are Knative's ------------------------------
directive("min_scale", BOTH, Int(0, g.MOST_SCALE), default="0",
          doc="How many replicas run at least; 0: none while nobody asks.")
directive("max_scale", BOTH, Int(0, g.MOST_SCALE), default="0",
          doc="How many replicas run at most; 0: no bound.")
directive("initial_scale", BOTH, Int(0, g.MOST_SCALE), default="1",
          doc="How many replicas a new version is started with.")
directive("activation_scale", BOTH, Int(1, g.MOST_SCALE), default="1",
          doc="How many replicas run at least while any runs.")
directive("prewarm", BOTH, Int(0, g.MOST_SCALE), default="0",
          doc="How many warm processes wait for the function while it sleeps.")
directive("metric", BOTH, Enum("concurrency", "rps"), default="concurrency",
          doc="What is measured: requests at once, or a second.")
directive("target", BOTH, read=g.read_number(0.01, 1e6), least=1, most=1, syntax="NUMBER",
          doc="How much one replica shall have to do; by default its concurrency, else 100; of rps"
          " 200.")
directive("utilization", BOTH, read=g.read_share(1, 100), least=1, most=1, default=0.7,
          syntax="PERCENT", doc="The share of the target that is aimed at.")
directive("window", BOTH, read=g.read_times(1000, 3_600_000, "from 1s to 1h"), least=1, most=1,
          default=60_000, syntax="TIME", doc="Over what time load is averaged.")
directive("panic_window", BOTH, read=g.read_share(1, 100), least=1, most=1, default=0.1,
          syntax="PERCENT", doc="The share of the window that notices a sudden rise.")
directive("panic_threshold", BOTH, read=g.read_share(110, 1000), least=1, most=1, default=2.0,
          syntax="PERCENT", doc="From which load of the ready replicas a rise is sudden.")
directive("scale_down_delay", BOTH, read=g.read_times(0, 3_600_000, "from 0 to 1h"), least=1,
          most=1, default=0, syntax="TIME", doc="How long less load must last before it counts.")
directive("retention", BOTH, Duration(), default="30s",
          doc="How long the last replica stays after nobody needs it.")
directive("max_up_rate", BOTH, read=g.read_number(1.01, 1e6), least=1, most=1, default=1000.0,
          syntax="NUMBER", doc="How many times as many replicas one decision may make.")
directive("max_down_rate", BOTH, read=g.read_number(1.01, 1e6), least=1, most=1, default=2.0,
          syntax="NUMBER", doc="How many times fewer replicas one decision may leave.")
directive("aggregation", BOTH, Enum("linear", "weighted"), default="linear",
          doc="Whether all seconds of a window weigh the same, or the newest most.")

# -- all functions, and who lets them in ----------------------------------------------------------
directive("functions", HTTP, block=FUNCTIONS, inherit=False,
          doc="What holds for all functions.")
directive("store", FUNCTIONS, Word(), default="var/functions.db", inherit=False,
          doc="The file that keeps what came by the API.")
directive("root", FUNCTIONS, Word(), inherit=False,
          doc="The folder whose files the API may name as images.")
directive("secrets_path", FUNCTIONS, Word(), default="var/secrets", inherit=False,
          doc="The folder that keeps secrets, readable by the gateway alone.")
directive("queue", FUNCTIONS, read=read_url, least=1, most=1, default=URL,
          inherit=False, syntax="sqlite:FILE | nats://HOST[:PORT][,HOST…][/QUEUE][?replicas=N]",
          doc="Where asynchronous calls wait.")
directive("zygotes", FUNCTIONS, Int(0, 4096), default="32", inherit=False,
          doc="How many warm Python processes are kept, the longest unused leaving first.")
directive("zone_size", FUNCTIONS, Size(), default="256m", inherit=False,
          doc="Shared memory for what is counted of versions and replicas; 8 KiB each, of which "
              "only pages in use cost memory.")
directive("function_pass", LOCATION | LOCATION_IF, read=read_function_pass, least=1, most=1,
          inherit=False, syntax="NAME[.NAMESPACE] | $VARIABLE | label:KEY=VALUE,… | path:",
          doc="Passes the request to a function: of that name, of the name that the text with"
          " variables gives, the oldest that has all the labels, or the one that the path names"
          " behind the location.")
directive("function_routes", SERVER, Flag(), default="off", inherit=False,
          doc="Requests that no location but / has go to the function whose annotations"
          " headrace.io/route… have a route for them, and to location / only if none has.")
directive("server_timing", HTTP | SERVER | LOCATION, Flag(), default="off",
          doc="Answers of functions say how long they waited: Server-Timing: queue, start.")
directive("openfaas_api", SERVER, Flag(), default="off", inherit=False,
          doc="Serves the OpenFaaS API: /system/, /function/, /async-function/,"
          " /healthz, and a page at /ui/.")
directive("openfaas_auth", HTTP | SERVER, Word(), default="var/openfaas-auth",
          doc="The file with USER:PASSWORD of the API, made at the first start; or off.")
