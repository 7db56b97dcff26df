"""What the conf does not write but has: the locations of `openfaas_api on`, and the server that
the controller's own calls go to.

They stand in the model as blocks read from the text below, inside the server that asked for them:
so its limits, logs and error pages hold there too. A location of the conf's own with the same
name stands in place of a hidden one.
"""

from __future__ import annotations

from proxy.conf.directive import HTTP
from proxy.conf.inherit import Block
from proxy.conf.parser import read_inside
from proxy.functions.api.wanted import auth_path, mark_of

CONTROLLER = "/headrace-controller"  # stands for the controller's socket, wherever it lies
TO_CONTROLLER = f"""
    proxy_pass http://unix:{CONTROLLER}:;
    proxy_http_version 1.1;
    proxy_buffering off;
    proxy_request_buffering off;
    proxy_connect_timeout 5s;
    proxy_set_header Host $http_host;
    proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    proxy_set_header X-Forwarded-Proto $scheme;
    proxy_set_header X-Call-Id $call_id;
"""
# Bodies: a deployment or a secret is small, how large a call may be the queue says itself.
API = f"""
    location ^~ /function/ {{ function_pass path:; }}
    location ^~ /system/ {{
        client_max_body_size 2m;
        proxy_read_timeout 1h;
        {TO_CONTROLLER}
        proxy_set_header X-Headrace-Auth MARK;
    }}
    location = /ui/ {{ {TO_CONTROLLER} proxy_set_header X-Headrace-Auth MARK; }}
    location ^~ /async-function/ {{ client_max_body_size 0; {TO_CONTROLLER} }}
    location = /healthz {{ client_max_body_size 1k; {TO_CONTROLLER} }}
"""
# Whoever gets here comes with root's or the gateway's own rights; the client's limits were
# applied when it called.
INTERNAL = """
    server {
        openfaas_api on;
        access_log off;
        client_max_body_size 0;
        proxy_set_header Host $http_host;
        proxy_set_header X-Forwarded-For $http_x_forwarded_for;
        proxy_set_header X-Forwarded-Proto $http_x_forwarded_proto;
        proxy_set_header X-Forwarded-Host $http_x_forwarded_host;
        location / { return 404; }
    }
"""
SHARED = ("client_body_temp_path", "proxy_temp_path")  # the folders that were made


def api_locations(server: Block) -> Block:
    """The hidden locations of a server with `openfaas_api on`."""
    text = API.replace("MARK", mark_of(auth_path(server)))  # whose password holds here
    return read_inside(server, text, "openfaas_api")


def async_location(location: Block) -> Block:
    """Where requests go that a function's location has and that are called later: the same
    location, but for who answers."""
    inside = read_inside(location, TO_CONTROLLER, "async")
    if location.name == "location" and location.value.modifier != "@":
        inside.value = location.value
    return inside


def route_location(server: Block) -> Block:
    """Where requests go that a function's route has: its settings are the server's."""
    text = "location function_routes { function_pass routes:; }"
    return read_inside(server, text, "function_routes").blocks[0]


def internal_server(http: Block) -> Block:
    """The server for the controller's calls. Nothing that the conf's `http` says holds in it."""
    outside = Block("http", HTTP, http.token, http.parent)
    for statement in http.statements:
        if statement.name in SHARED:
            outside.add(statement)
    return read_inside(outside, INTERNAL, "internal").blocks[0]
