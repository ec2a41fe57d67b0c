//! Queries over UDP: read in bursts, answered one by one from the address that they came to.

use std::{array, io, io::IoSliceMut, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use quinn_udp::{RecvMeta, Transmit, UdpSocketState};
use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::{io::Interest, net::UdpSocket};

use super::{
    responder::{Asker, Over, Responder},
    socket::Datagrams,
};
use crate::clock::Clock;

/// Serves until it is dropped.
pub(super) async fn serve(datagrams: Datagrams, responder: Arc<ArcSwap<Responder>>, clock: Clock) {
    let port = match Port::new(datagrams) {
        Ok(port) => port,
        Err(error) => return tracing::error!("dns over UDP: {error}"),
    };
    let mut buffers = vec![0; BURST * LARGEST].into_boxed_slice();
    let mut metas = [RecvMeta::default(); BURST];
    let mut out = Vec::new();
    let mut chance = StdRng::from_os_rng();
    loop {
        let received = match port.receive(&mut buffers, &mut metas).await {
            Ok(received) => received,
            Err(error) => {
                // Of an earlier answer that could not be delivered, mostly; of a lasting one there may be many.
                tracing::debug!("dns over UDP: {error}");
                tokio::time::sleep(AFTER_ERROR).await;
                continue;
            }
        };
        let (now, unix_seconds) = (clock.now(), clock.unix_seconds());
        let responder = responder.load_full();
        for (meta, buffer) in metas[..received].iter().zip(buffers.chunks_exact(LARGEST)) {
            // The kernel may put packets of one client that follow one another into one buffer.
            for packet in buffer[..meta.len].chunks(meta.stride.max(1)) {
                let asker =
                    Asker { address: meta.addr, over: Over::Udp, now, unix_seconds, seed: chance.random() };
                if responder.answer(packet, &asker, &mut out) {
                    port.send(&out, meta).await;
                }
            }
        }
        // Whoever else is served by this thread is not to wait until a flood has passed.
        tokio::task::yield_now().await;
    }
}

struct Port {
    socket: UdpSocket,
    state: UdpSocketState,
}

impl Port {
    fn new(Datagrams { socket, state }: Datagrams) -> io::Result<Self> {
        Ok(Self { socket: UdpSocket::from_std(socket)?, state })
    }

    async fn receive(&self, buffers: &mut [u8], metas: &mut [RecvMeta; BURST]) -> io::Result<usize> {
        self.socket
            .async_io(Interest::READABLE, || {
                let mut chunks = buffers.chunks_exact_mut(LARGEST);
                let mut slices: [_; BURST] =
                    array::from_fn(|_| IoSliceMut::new(chunks.next().expect("a buffer for each packet")));
                self.state.recv((&self.socket).into(), &mut slices, metas)
            })
            .await
    }

    /// An answer that cannot be delivered is lost, as others are on their way.
    async fn send(&self, contents: &[u8], to: &RecvMeta) {
        let transmit =
            Transmit { destination: to.addr, ecn: None, contents, segment_size: None, src_ip: to.dst_ip };
        let send = || self.state.try_send((&self.socket).into(), &transmit);
        if let Err(error) = self.socket.async_io(Interest::WRITABLE, send).await {
            tracing::debug!(client = %to.addr, "dns over UDP: {error}");
        }
    }
}

/// Packets that are read at once.
const BURST: usize = 16;

/// The longest packet, or several of one client together.
const LARGEST: usize = 1 << 16;

const AFTER_ERROR: Duration = Duration::from_millis(10);
