"""The next version of thumbs.py: larger pictures, the canary of the examples."""

import json


def handle(event, context):
    """`POST /function/thumbs` with {"width": 800, "height": 600}."""
    try:
        size = json.loads(event.body or b"{}")
        width, height = int(size.get("width", 1600)), int(size.get("height", 1200))
    except (ValueError, TypeError, AttributeError):
        return {"statusCode": 400, "body": 'send {"width": NUMBER, "height": NUMBER}\n'}
    print(f"asked for {width}x{height}")  # a line of its log: headrace fn logs thumbs
    scale = 240 / max(width, height, 1)
    small = {"width": round(width * scale), "height": round(height * scale), "by": "v2"}
    return {"body": json.dumps(small) + "\n", "headers": {"Content-Type": "application/json"}}
