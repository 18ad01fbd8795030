"""The REST interface: app, middleware and routers."""
