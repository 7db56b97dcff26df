"""A function for messages of MQTT: what sensors say becomes degrees Fahrenheit."""


def handle(event, context):
    """The payload is the body; the topic, and what its wildcards stood for, are headers."""
    where = event.headers.get("X-Topic-1", "somewhere")
    try:
        celsius = float(event.body)
    except ValueError:
        return {"statusCode": 400, "body": "that is no temperature\n"}
    return {"statusCode": 200, "body": f"{where}: {celsius * 9 / 5 + 32:.1f} F\n"}
