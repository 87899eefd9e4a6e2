//! The tests run the real binary, real etcd and a real gRPC client.
//!
//! They test the debug build, or the binary that `ETCDPROXY_TEST_BINARY` names: `scripts/test.sh` names the static
//! release binary. Ignored tests need root, or files that this script makes; it runs them, too.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::needless_pass_by_value, reason = "json!(…) as an argument reads best")]

mod api_calls;
mod arm64;
mod attack;
mod bindings;
mod build;
mod buildpack;
mod certificates;
mod cgroup;
mod cluster;
mod cnb;
mod command_line;
mod compatibility;
mod container;
mod dev;
mod doctor;
mod documents;
mod drain;
mod exec;
mod exit_codes;
mod failover;
mod grpc;
mod hostile;
mod install;
mod limits;
mod listen;
mod log;
mod manifest;
mod monitoring;
mod names;
mod native;
mod package;
mod pki;
mod process_1;
mod resources;
mod run;
mod sbom;
mod secrets;
mod settings;
mod sidecar;
mod status;
mod structure;
mod support;
mod three_programs;
mod tls;
mod unpack;
mod wait;

#[path = "../../src/api/mod.rs"]
#[allow(dead_code, reason = "tests use a part of it")]
mod api;

#[path = "../../examples/client/load.rs"]
#[allow(dead_code, reason = "shared with the example client")]
mod load;
