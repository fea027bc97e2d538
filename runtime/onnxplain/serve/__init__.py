"""The gRPC server: `service` answers a request, `wire` reads and writes its messages, `server` starts and drains."""
