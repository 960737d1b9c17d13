//! [`Proxy`]: a network between a pager and its server that misbehaves on demand.
//!
//! Invariants:
//! - bytes arrive in order or not at all, as with TCP: a fault ends connections or holds them, and never changes bytes;
//! - every thread ends soon after the proxy is dropped.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use crate::limits::PROXY_TURN;

/// What happens to bytes on their way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Network {
    /// They arrive.
    #[default]
    Sound,
    /// Each piece arrives late.
    Slow(Duration),
    /// Connections are ended, and new ones are refused.
    Reset,
    /// Requests arrive, and the connection ends where the reply would have begun.
    LostReplies,
    /// The server gets each request a second time, on a connection whose replies nobody reads.
    Duplicated,
    /// Nothing arrives and nothing ends.
    Partition,
}

/// A listener in front of a server.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    server: SocketAddr,
    network: Mutex<Network>,
    stop: AtomicBool,
    connections: AtomicU64,
    /// Connections that have not ended.
    live: AtomicU64,
}

impl Shared {
    fn network(&self) -> Network {
        *self.network.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

impl Proxy {
    /// Listens on a free port of loopback in front of `server`.
    ///
    /// # Errors
    /// The operating system's.
    pub fn start(server: SocketAddr) -> io::Result<Self> {
        Self::start_on(IpAddr::V4(Ipv4Addr::LOCALHOST), server)
    }

    /// Listens on a free port of an address of this machine.
    ///
    /// # Errors
    /// The operating system's.
    pub fn start_on(address: IpAddr, server: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind((address, 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            server,
            network: Mutex::default(),
            stop: AtomicBool::new(false),
            connections: AtomicU64::new(0),
            live: AtomicU64::new(0),
        });
        let own = shared.clone();
        thread::spawn(move || accept(&listener, &own));
        Ok(Self { address, shared })
    }

    /// Where to connect to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes the network from now on.
    pub fn set(&self, network: Network) {
        *self.shared.network.lock().unwrap_or_else(PoisonError::into_inner) = network;
    }

    /// Waits until every connection has ended: with [`Network::Reset`] they do.
    pub fn wait_for_ends(&self) {
        while self.shared.live.load(Ordering::Acquire) > 0 {
            thread::sleep(PROXY_TURN);
        }
    }

    /// Connections so far.
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    while !shared.stopped() {
        match listener.accept() {
            Ok((client, _)) => {
                let shared = shared.clone();
                shared.live.fetch_add(1, Ordering::Release);
                thread::spawn(move || {
                    // A connection that cannot be made is one that the client sees ended.
                    drop(serve(&client, &shared));
                    shared.live.fetch_sub(1, Ordering::Release);
                });
            }
            Err(_) => thread::sleep(PROXY_TURN),
        }
    }
}

/// Carries bytes both ways until either side ends.
fn serve(client: &TcpStream, shared: &Shared) -> io::Result<()> {
    shared.connections.fetch_add(1, Ordering::Relaxed);
    client.set_nonblocking(false)?;
    if shared.network() == Network::Reset {
        return client.shutdown(Shutdown::Both);
    }
    let server = TcpStream::connect(shared.server)?;
    let shadow = (shared.network() == Network::Duplicated)
        .then(|| TcpStream::connect(shared.server))
        .transpose()?;
    for stream in [client, &server] {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PROXY_TURN))?;
    }
    thread::scope(|scope| {
        if let Some(shadow) = &shadow {
            scope.spawn(|| while matches!((&*shadow).read(&mut [0; 4096]), Ok(1..)) {});
        }
        scope.spawn(|| carry(client, &server, shared, shadow.as_ref(), Way::Request));
        carry(&server, client, shared, None, Way::Reply);
    });
    Ok(())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Request,
    Reply,
}

fn carry(from: &TcpStream, to: &TcpStream, shared: &Shared, shadow: Option<&TcpStream>, way: Way) {
    let mut buffer = vec![0; 64 << 10];
    while !shared.stopped() {
        let network = shared.network();
        match network {
            Network::Reset => break,
            Network::Partition => {
                thread::sleep(PROXY_TURN);
                continue;
            }
            _ => {}
        }
        let count = match (&*from).read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => continue,
            Err(_) => break,
        };
        // It may have changed while nothing came.
        match shared.network() {
            Network::Reset => break,
            Network::LostReplies if way == Way::Reply => break,
            Network::Partition => continue_when_healed(shared),
            Network::Slow(delay) => thread::sleep(delay),
            _ => {}
        }
        if let Some(mut shadow) = shadow {
            // The second copy may be refused; the first one counts.
            let _ = shadow.write_all(&buffer[..count]);
        }
        if (&*to).write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    for stream in [Some(from), Some(to), shadow].into_iter().flatten() {
        // One that has ended is as it should be.
        let _ = stream.shutdown(Shutdown::Both);
    }
}

fn continue_when_healed(shared: &Shared) {
    while shared.network() == Network::Partition && !shared.stopped() {
        thread::sleep(PROXY_TURN);
    }
}
