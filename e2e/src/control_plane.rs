//! etcd, API server, controller manager and scheduler, on the master.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::node::Node;
use crate::pki::{self, Authority, Credential};
use crate::{images, shell, wait};

const SERVICE_CIDRS: &str = "10.96.0.0/16,fd00:10:96::/112";

/// Keys and addresses of a control plane.
pub(crate) struct ControlPlane {
    pub(crate) ca: Authority,
    /// `https://<master>:6443`
    pub(crate) server: String,
    /// The administrator's kubeconfig on this machine.
    pub(crate) kubeconfig: PathBuf,
    admin: Credential,
    dir: PathBuf,
}

impl ControlPlane {
    /// Starts etcd and the API server; does not wait.
    pub(crate) fn start(master: &Node) -> Result<Self> {
        let dir = master
            .dir()
            .parent()
            .context("a node's directory lies in its lab's")?
            .join("kube");
        let ca = Authority::create(&dir, "ca")?;
        let (v4, v6) = master.addresses();
        let server = format!("https://{v4}:6443");
        let admin = ca.issue("admin", "admin", &["system:masters"], &[])?;
        let plane = Self {
            kubeconfig: dir.join("admin.kubeconfig"),
            ca,
            server,
            admin,
            dir,
        };
        plane.write_kubeconfig(&plane.kubeconfig, &plane.admin)?;
        plane.etcd(master)?;
        plane.api_server(master, &v4, &v6)?;
        Ok(plane)
    }

    /// Waits until the API server serves.
    pub(crate) fn wait(&self) -> Result<()> {
        wait::until_true("the API server", Duration::from_secs(90), || {
            let url = format!("{}/readyz", self.server);
            let (ca, cert, key) = (
                path(&self.ca.certificate),
                path(&self.admin.certificate),
                path(&self.admin.key),
            );
            let argv = [
                "curl",
                "-sS",
                "--fail",
                "-m",
                "5",
                "--cacert",
                &ca,
                "--cert",
                &cert,
                "--key",
                &key,
                url.as_str(),
            ];
            shell::run(&argv).map(|_| true)
        })
    }

    /// Writes a kubeconfig for a credential.
    pub(crate) fn write_kubeconfig(&self, file: &Path, who: &Credential) -> Result<()> {
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: lab\n\
             clusters: [{{name: lab, cluster: {{server: \"{}\", certificate-authority: \"{}\"}}}}]\n\
             users: [{{name: lab, user: {{client-certificate: \"{}\", client-key: \"{}\"}}}}]\n\
             contexts: [{{name: lab, context: {{cluster: lab, user: lab}}}}]\n",
            self.server,
            path(&self.ca.certificate),
            path(&who.certificate),
            path(&who.key),
        );
        fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
    }

    /// A kubeconfig for a component that shows `common_name` of `groups`.
    pub(crate) fn component(
        &self,
        file: &str,
        common_name: &str,
        groups: &[&str],
    ) -> Result<String> {
        let credential = self.ca.issue(file, common_name, groups, &[])?;
        let config = self.dir.join(format!("{file}.kubeconfig"));
        self.write_kubeconfig(&config, &credential)?;
        Ok(path(&config))
    }

    fn etcd(&self, master: &Node) -> Result<()> {
        let data = format!("--data-dir={}", path(&self.dir.join("etcd")));
        master.start(
            "etcd",
            &[
                "etcd",
                &data,
                "--unsafe-no-fsync",
                "--listen-client-urls=http://127.0.0.1:2379",
                "--advertise-client-urls=http://127.0.0.1:2379",
                "--listen-peer-urls=http://127.0.0.1:2380",
                "--initial-advertise-peer-urls=http://127.0.0.1:2380",
                "--initial-cluster=default=http://127.0.0.1:2380",
                "--log-level=warn",
            ],
        )?;
        Ok(())
    }

    fn api_server(&self, master: &Node, v4: &str, v6: &str) -> Result<()> {
        let mut names: Vec<String> = [v4, v6, "127.0.0.1", "10.96.0.1", "fd00:10:96::1"]
            .map(str::to_string)
            .to_vec();
        let service = [
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            "localhost",
        ];
        names.extend(service.map(str::to_string));
        names.push("kubernetes.default.svc.cluster.local".into());
        let serving = self.ca.issue("apiserver", "kube-apiserver", &[], &names)?;
        let kubelet = self.ca.issue(
            "apiserver-kubelet",
            "kube-apiserver-kubelet",
            &["system:masters"],
            &[],
        )?;
        let (sa_key, sa_pub) = pki::key_pair(&self.dir, "sa")?;
        let argv = [
            images::tool("kube-apiserver")?,
            "--etcd-servers=http://127.0.0.1:2379".into(),
            format!("--advertise-address={v4}"),
            "--endpoint-reconciler-type=lease".into(),
            format!("--service-cluster-ip-range={SERVICE_CIDRS}"),
            "--allow-privileged=true".into(),
            "--authorization-mode=Node,RBAC".into(),
            "--enable-admission-plugins=NodeRestriction".into(),
            "--anonymous-auth=false".into(),
            format!("--client-ca-file={}", path(&self.ca.certificate)),
            format!("--tls-cert-file={}", path(&serving.certificate)),
            format!("--tls-private-key-file={}", path(&serving.key)),
            format!(
                "--kubelet-client-certificate={}",
                path(&kubelet.certificate)
            ),
            format!("--kubelet-client-key={}", path(&kubelet.key)),
            format!(
                "--kubelet-certificate-authority={}",
                path(&self.ca.certificate)
            ),
            "--kubelet-preferred-address-types=InternalIP".into(),
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local".into(),
            format!("--service-account-signing-key-file={}", path(&sa_key)),
            format!("--service-account-key-file={}", path(&sa_pub)),
            "--profiling=false".into(),
        ];
        master.start("kube-apiserver", &argv)?;
        Ok(())
    }

    /// Starts the controller manager and the scheduler: they give up when the API server does not know their rights yet.
    pub(crate) fn controllers(&self, master: &Node) -> Result<()> {
        let manager =
            self.component("controller-manager", "system:kube-controller-manager", &[])?;
        let sa_key = self.dir.join("sa.key");
        master.start(
            "kube-controller-manager",
            &[
                images::tool("kube-controller-manager")?,
                format!("--kubeconfig={manager}"),
                format!("--authentication-kubeconfig={manager}"),
                format!("--authorization-kubeconfig={manager}"),
                "--leader-elect=false".into(),
                "--use-service-account-credentials=true".into(),
                // Addresses are Outboard's: nodes get no ranges.
                "--allocate-node-cidrs=false".into(),
                format!("--service-cluster-ip-range={SERVICE_CIDRS}"),
                format!("--root-ca-file={}", path(&self.ca.certificate)),
                format!("--service-account-private-key-file={}", path(&sa_key)),
                format!("--cluster-signing-cert-file={}", path(&self.ca.certificate)),
                format!("--cluster-signing-key-file={}", path(&self.ca.key)),
                "--bind-address=127.0.0.1".into(),
            ],
        )?;
        let scheduler = self.component("scheduler", "system:kube-scheduler", &[])?;
        master.start(
            "kube-scheduler",
            &[
                images::tool("kube-scheduler")?,
                format!("--kubeconfig={scheduler}"),
                format!("--authentication-kubeconfig={scheduler}"),
                format!("--authorization-kubeconfig={scheduler}"),
                "--leader-elect=false".into(),
                "--bind-address=127.0.0.1".into(),
            ],
        )?;
        Ok(())
    }
}

fn path(file: &Path) -> String {
    file.display().to_string()
}
