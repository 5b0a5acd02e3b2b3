"""How the processes of a node talk: gRPC over Unix sockets, typed messages, one verb list per socket."""
