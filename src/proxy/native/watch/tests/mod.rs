mod client;
mod cluster;
mod proto;
mod rules;
mod simulation;
