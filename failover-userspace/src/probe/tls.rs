//! TLS of checks and webhooks: whom to trust, and why somebody is not trusted.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tracing::warn;

use super::Failure;
use crate::health::TlsFailure;
use crate::model::Trust;

/// The one protocol that we speak over TLS (RFC 7301).
const ALPN: &[u8] = b"http/1.1";

/// What a client needs for each way to trust, made once.
#[derive(Debug, Default)]
pub(crate) struct Clients(HashMap<Trust, Arc<ClientConfig>>);

impl Clients {
    /// The client that trusts so; the first one that trusts the system reads its store.
    pub(crate) fn of(&mut self, trust: &Trust) -> Arc<ClientConfig> {
        if let Some(config) = self.0.get(trust) {
            return Arc::clone(config);
        }
        let config = Arc::new(client(trust));
        self.0.insert(trust.clone(), Arc::clone(&config));
        config
    }
}

fn client(trust: &Trust) -> ClientConfig {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("ring has cipher suites for TLS 1.2 and 1.3");
    let builder = match trust {
        Trust::System => builder.with_root_certificates(system_roots()),
        Trust::File { certificates, .. } => builder.with_root_certificates(roots(certificates)),
        Trust::Anybody => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(NoVerification(provider))),
    };
    let mut config = builder.with_no_client_auth();
    config.alpn_protocols = vec![ALPN.to_vec()];
    // A resumed session shows no certificate: nobody would see that it has expired.
    config.resumption = Resumption::disabled();
    config
}

/// The system's trust store; what is wrong with it is logged, and then nobody may be trusted.
fn system_roots() -> RootCertStore {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        warn!(%error, "the system's trust store");
    }
    let roots = roots(&found.certs);
    if roots.is_empty() {
        warn!("the system trusts no CA (is ca-certificates installed?): https needs a ca_file");
    }
    roots
}

fn roots(certificates: &[CertificateDer<'static>]) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    // Stores have a few of an odd form; those of a ca_file have been tried before.
    roots.add_parsable_certificates(certificates.iter().cloned());
    roots
}

/// The handshake on a connection, as a client.
pub(crate) async fn connect(
    client: Arc<ClientConfig>,
    name: &ServerName<'static>,
    stream: TcpStream,
) -> Result<TlsStream<TcpStream>, Failure> {
    TlsConnector::from(client)
        .connect(name.clone(), stream)
        .await
        .map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => {
                TlsFailure::Handshake("connection closed".to_owned()).into()
            }
            _ => Failure::of_tls(&error),
        })
}

impl From<TlsFailure> for Failure {
    fn from(failure: TlsFailure) -> Self {
        Self::Tls(failure)
    }
}

impl Failure {
    /// A failure to read from or write to a TLS session, or to begin one.
    pub(super) fn of_tls(error: &io::Error) -> Self {
        let cause = error.get_ref().and_then(|cause| cause.downcast_ref());
        match cause {
            Some(rustls::Error::InvalidCertificate(error)) => of_certificate(error).into(),
            Some(error) => TlsFailure::Handshake(error.to_string()).into(),
            None => Self::of(error),
        }
    }
}

fn of_certificate(error: &CertificateError) -> TlsFailure {
    use CertificateError as E;
    match error {
        E::Expired | E::ExpiredContext { .. } => TlsFailure::Expired,
        E::NotValidYet | E::NotValidYetContext { .. } => TlsFailure::NotYetValid,
        E::NotValidForName | E::NotValidForNameContext { .. } => TlsFailure::WrongName,
        // A bad signature: a CA of the same name as a trusted one, but with another key.
        E::UnknownIssuer | E::BadSignature => TlsFailure::UnknownCa,
        other => TlsFailure::Certificate(other.to_string()),
    }
}

/// `verify = false`: takes any certificate, and so any proof of owning it.
#[derive(Debug)]
struct NoVerification(Arc<CryptoProvider>);

impl ServerCertVerifier for NoVerification {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
