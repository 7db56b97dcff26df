"""A Python function of the quickstart: greets, and says what it was sent."""

import json


def handle(event, context):
    """GET /hello?name=you – text; POST – the body back as JSON. OpenFaaS' handler signature."""
    if event.method == "POST":
        body = event.body.decode("utf-8", "replace")
        answer = {"you_sent": body, "bytes": len(event.body)}
        return {
            "statusCode": 200,
            "headers": {"Content-Type": "application/json"},
            "body": json.dumps(answer) + "\n",
        }
    name = event.query.get("name", "world")
    return {"statusCode": 200, "body": f"Hello, {name}!\n"}
