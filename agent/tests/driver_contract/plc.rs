//! The test PLC as a child process: an OPC UA server of another make, with its own ledger.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

/// A running PLC; killed when dropped.
pub struct TestPlc {
    child: Child,
    dir: PathBuf,
    extra: Vec<String>,
    pub port: u64,
    pub endpoint: String,
    control: u64,
}

impl TestPlc {
    /// Starts one with its files in `dir`, all feeders manual so that nothing feeds by itself.
    pub async fn start(dir: &Path, extra: &[&str]) -> Self {
        let farm = dir.join("farm.json");
        let manual = json!({
            "defaults": {"mode": "manual", "rate_mg_per_s": 500},
            "feeders": [
                {"name": "R01", "profile": "block"}, {"name": "R02", "profile": "block"},
                {"name": "R03", "profile": "block"}, {"name": "F01", "profile": "scalar"},
                {"name": "F02", "profile": "scalar"}, {"name": "F03", "profile": "scalar"},
            ],
        });
        std::fs::write(&farm, manual.to_string()).unwrap();
        let extra = extra.iter().map(ToString::to_string).collect();
        Self::launch(dir.into(), extra, 0).await
    }

    async fn launch(dir: PathBuf, extra: Vec<String>, port: u64) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let (python, server) =
            (root.join("target/venv/bin/python"), root.join("tests/plc/farm_plc.py"));
        assert!(python.exists(), "{} is missing: run `make deps`", python.display());
        let mut child = Command::new(&python)
            .arg(&server)
            .args(["--port", &port.to_string(), "--dir"])
            .arg(&dir)
            .arg("--config")
            .arg(dir.join("farm.json"))
            .args(&extra)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let out = child.stdout.take().unwrap();
        let line = tokio::task::spawn_blocking(move || {
            let mut line = String::new();
            BufReader::new(out).read_line(&mut line).map(|_| line)
        });
        let line =
            tokio::time::timeout(Duration::from_mins(1), line).await.unwrap().unwrap().unwrap();
        let ready: Value =
            serde_json::from_str(&line).unwrap_or_else(|_| panic!("no ready line: {line:?}"));
        Self {
            child,
            dir,
            extra,
            port: ready["port"].as_u64().unwrap(),
            endpoint: ready["endpoint"].as_str().unwrap().into(),
            control: ready["control"].as_u64().unwrap(),
        }
    }

    /// A power cut.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Power again, at the same address with the same memory.
    pub async fn restart(&mut self) {
        *self = Self::launch(self.dir.clone(), self.extra.clone(), self.port).await;
    }

    /// Sends it a signal such as `-STOP`.
    pub fn signal(&self, signal: &str) {
        let sent =
            Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// Asks its control channel.
    pub fn control(&self, op: &Value) -> Value {
        let answer = ask(&format!("127.0.0.1:{}", self.control), op);
        assert_eq!(answer["ok"], json!(true), "{op}: {answer}");
        answer
    }

    /// The lines of its ledger.
    pub fn ledger(&self) -> Vec<Value> {
        ledger(&self.dir.join("ledger.jsonl"))
    }
}

impl Drop for TestPlc {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One JSON line there, one back.
pub fn ask(address: &str, op: &Value) -> Value {
    let mut peer = TcpStream::connect(address).unwrap();
    peer.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    peer.write_all(format!("{op}\n").as_bytes()).unwrap();
    let mut line = String::new();
    BufReader::new(peer).read_line(&mut line).unwrap();
    serde_json::from_str(&line).unwrap()
}

/// The lines of a ledger.
pub fn ledger(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}
