# Nothing but fields: freeze.py fills them.


cdef class MqttServer:
    pass
