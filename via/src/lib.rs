//! A server-driven web framework on an event-sourced clustered state backplane.
