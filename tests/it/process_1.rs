//! As process 1 of a container: signals arrive, orphans are collected, and exit codes stay those of the command.

mod needs_root {
    use std::process::{Command, Stdio};
    use std::time::Duration;

    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;

    use crate::support::{
        Cluster, Lines, Process, binary, child_of, command, eventually, free_addr, is_alive, unique_addr, unique_host,
        wait_ready,
    };

    /// The binary as process 1, with its output.
    fn init(args: &[&str]) -> Command {
        let mut init = command("unshare".as_ref(), ["--pid", "--fork", "--kill-child", "--mount-proc"]);
        init.arg(binary()).args(args).stderr(Stdio::piped());
        init
    }

    /// The pid of process 1, and how to signal it, as seen from outside.
    fn pid_of(outer: &Process) -> Pid {
        Pid::from_raw(child_of(outer.pid(), "etcdproxy").try_into().unwrap())
    }

    /// Runs a script by `exec` as process 1. Returns its exit code.
    fn exec(cluster: &Cluster, script: &str) -> Option<i32> {
        let addr = unique_addr();
        let mut init = init(&["exec", "--endpoints", &cluster.endpoints(), "--listen-addr", &addr, "--"]);
        let dir = tempfile::tempdir().unwrap();
        Process::start(init.args(["sh", "-c", script]).current_dir(&dir).stderr(Stdio::null())).wait().code()
    }

    #[test]
    #[ignore = "needs root: it starts a PID namespace"]
    fn orphans_become_no_zombies_and_the_commands_exit_code_is_its_own() {
        let cluster = Cluster::start(1);
        // While an orphan is a zombie, it has a directory in /proc.
        let one = "(sleep 0.2 & echo $! >orphan); pid=$(cat orphan)
            grep -q '^PPid:.1$' /proc/$pid/status || exit 8
            while [ -e /proc/$pid ]; do sleep 0.02; done; exit 7";
        assert_eq!(exec(&cluster, one), Some(7));
        let many = "for n in $(seq 200); do (true &); done; exit 9";
        assert_eq!(exec(&cluster, many), Some(9));
        let by_signal = "(sh -c 'kill -KILL $$' &); kill -TERM $$";
        assert_eq!(exec(&cluster, by_signal), Some(143));
    }

    #[test]
    #[ignore = "needs root: it starts a PID namespace"]
    fn signals_reach_the_command() {
        let cluster = Cluster::start(1);
        let addr = unique_addr();
        let dir = tempfile::tempdir().unwrap();
        let script = "trap 'echo usr1 >got' USR1; trap 'exit 3' TERM; : >started; while :; do sleep 0.05; done";
        let mut init = init(&["exec", "--endpoints", &cluster.endpoints(), "--listen-addr", &addr, "--"]);
        let mut outer = Process::start(init.args(["sh", "-c", script]).current_dir(&dir).stderr(Stdio::null()));
        eventually("the command runs", || dir.path().join("started").exists());
        kill(pid_of(&outer), Signal::SIGUSR1).unwrap();
        eventually("the command has received it", || dir.path().join("got").exists());
        kill(pid_of(&outer), Signal::SIGTERM).unwrap();
        assert_eq!(outer.wait().code(), Some(3));
    }

    #[test]
    #[ignore = "needs root: it starts a PID namespace"]
    fn every_mode_ends_by_sigterm() {
        let cluster = Cluster::start(1);
        // etcd itself does not receive SIGTERM: the kernel ends it.
        for (mode, drain, code) in [("native", "8s", 0), ("grpc-proxy", "8s", 0), ("grpc-proxy", "off", 143)] {
            let addr = unique_addr();
            let args = ["run", "--mode", mode, "--drain", drain, "--listen-addr", &addr, "--endpoints"];
            let mut outer = Process::start(init(&args).arg(cluster.endpoints()).stderr(Stdio::null()));
            wait_ready(&addr);
            let pid = pid_of(&outer);
            let child: u32 =
                child_of(pid.as_raw().try_into().unwrap(), if drain == "off" { "etcd" } else { "etcdproxy" });
            kill(pid, Signal::SIGTERM).unwrap();
            assert_eq!(outer.wait().code(), Some(code), "{mode} {drain}");
            assert!(!is_alive(child));
        }
    }

    #[test]
    #[ignore = "needs root: it starts a PID namespace"]
    fn a_command_without_handlers_ends_by_sigterm() {
        let addr = free_addr(&unique_host());
        for args in [
            &["wait", "--timeout", "10m", "--listen-addr", &addr][..],
            &[
                "run",
                "--mode",
                "grpc-proxy",
                "--drain",
                "off",
                "--listen-addr",
                &addr,
                "--endpoints",
                "nohost.invalid:1",
            ],
        ] {
            let mut outer = Process::start(init(args).stderr(Stdio::null()));
            let pid = pid_of(&outer);
            // One that comes before process 1 has a handler is lost, and nobody can say from outside when it has one.
            eventually("it has ended", || {
                let _ = kill(pid, Signal::SIGTERM);
                std::thread::sleep(Duration::from_millis(20));
                !outer.is_running()
            });
            assert_eq!(outer.wait().code(), Some(143), "{args:?}");
        }
    }

    #[test]
    #[ignore = "needs root: it starts a PID namespace"]
    fn a_program_that_cannot_start_says_why() {
        let mut outer = Process::start(&mut init(&["run", "--endpoints", "h:1", "--listen-addr", "1"]));
        let mut lines = Lines::of(&mut outer);
        lines.wait_for("etcdproxy: error: --listen-addr: \"1\" has no port");
        assert_eq!(outer.wait().code(), Some(2));
    }
}
