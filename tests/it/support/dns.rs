//! DNS clients: queries over UDP, connections over TCP, and a resolver.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

use hickory_proto::{
    op::{Edns, Message, Query},
    rr::{
        Name, RData, Record, RecordType,
        rdata::opt::{ClientSubnet, EdnsOption},
    },
};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream, UdpSocket},
};

use super::{net::own_ip, soon};

/// A query on the wire, with an id.
pub fn query(id: u16, name: &str, kind: RecordType) -> Vec<u8> {
    let mut message = Message::query();
    message.metadata.id = id;
    message.add_query(Query::query(Name::from_ascii(name).expect("a name"), kind));
    message.to_vec().expect("a query can be written")
}

/// The addresses that a message answers with.
pub fn addresses(message: &Message) -> Vec<IpAddr> {
    let address = |data: &RData| match data {
        RData::A(ip) => Some(IpAddr::from(ip.0)),
        RData::AAAA(ip) => Some(IpAddr::from(ip.0)),
        _ => None,
    };
    message.answers.iter().filter_map(|record| address(&record.data)).collect()
}

/// Asks over UDP, from a port of its own, and hears only what comes from the address that it asked.
pub async fn ask(server: SocketAddr, name: &str, kind: RecordType) -> Message {
    soon("an answer over UDP", try_ask(server, name, kind)).await.expect("an answer")
}

/// The same where perhaps nobody listens.
pub async fn try_ask(server: SocketAddr, name: &str, kind: RecordType) -> io::Result<Message> {
    exchange(server, &query(4711, name, kind)).await
}

async fn exchange(server: SocketAddr, query: &[u8]) -> io::Result<Message> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    socket.connect(server).await?;
    socket.send(query).await?;
    let mut answer = [0; 4096];
    let length = socket.recv(&mut answer).await?;
    assert_eq!(answer[..2], query[..2], "the id");
    Ok(Message::from_vec(&answer[..length]).expect("a message"))
}

/// A connection to a DNS server.
pub struct DnsConnection {
    pub stream: TcpStream,
}

impl DnsConnection {
    pub async fn open(server: SocketAddr) -> Self {
        Self { stream: soon("a connection", TcpStream::connect(server)).await.expect("somebody listens") }
    }

    /// One whose client has room for few answers that it does not read.
    pub async fn open_narrow(server: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(4096).expect("it is not connected yet");
        Self { stream: soon("a connection", socket.connect(server)).await.expect("somebody listens") }
    }

    /// A query as TCP carries it.
    pub fn framed(id: u16, name: &str, kind: RecordType) -> Vec<u8> {
        let query = query(id, name, kind);
        [&(query.len() as u16).to_be_bytes()[..], &query].concat()
    }

    /// The next answer; `None`: the server has closed.
    pub async fn answer(&mut self) -> Option<Message> {
        soon("an answer over TCP", async {
            let length = self.stream.read_u16().await.ok()?;
            let mut answer = vec![0; length.into()];
            self.stream.read_exact(&mut answer).await.ok()?;
            Some(Message::from_vec(&answer).expect("a message"))
        })
        .await
    }

    pub async fn ask(&mut self, name: &str, kind: RecordType) -> Option<Message> {
        self.stream.write_all(&Self::framed(4711, name, kind)).await.ok()?;
        self.answer().await
    }
}

/// A resolver that asks the DNS of sites for a client, and keeps answers until their time is over.
#[derive(Default)]
pub struct Resolver {
    /// By name, with the second at which they are over.
    kept: BTreeMap<String, (u64, Vec<IpAddr>)>,
    /// How often it has asked.
    pub asked: usize,
}

impl Resolver {
    /// The IPv4 addresses of a name at a second of its own clock, for a client in `network`, an IPv4 network of 24
    /// bits; `server` is asked if no answer is kept.
    pub async fn resolve(
        &mut self,
        name: &str,
        network: Ipv4Addr,
        server: SocketAddr,
        now: u64,
    ) -> Vec<IpAddr> {
        if let Some((_, addresses)) = self.kept.get(name).filter(|(end, _)| now < *end) {
            return addresses.clone();
        }
        self.asked += 1;
        let mut message = Message::query();
        message.add_query(Query::query(Name::from_ascii(name).expect("a name"), RecordType::A));
        let mut edns = Edns::new();
        edns.options_mut().insert(EdnsOption::Subnet(ClientSubnet::new(network.into(), 24, 0)));
        message.set_edns(edns);
        let query = message.to_vec().expect("a query can be written");
        let answer = soon("an answer over UDP", exchange(server, &query)).await.expect("an answer");
        let ttl = answer.answers.iter().map(|record| u64::from(record.ttl)).min().unwrap_or_default();
        let found = addresses(&answer);
        self.kept.insert(name.to_owned(), (now + ttl, found.clone()));
        found
    }
}

/// A name server over UDP that has the same addresses for every name, for a moment.
pub struct NameServer {
    pub addr: SocketAddr,
    /// `None`: it does not answer.
    says: Arc<Mutex<Option<Vec<IpAddr>>>>,
}

impl NameServer {
    pub async fn start(addresses: &[IpAddr]) -> Self {
        let socket = UdpSocket::bind((own_ip(), 0)).await.expect("a loopback address has a free port");
        let addr = socket.local_addr().expect("a bound socket has an address");
        let says = Arc::new(Mutex::new(Some(addresses.to_vec())));
        let current = says.clone();
        tokio::spawn(async move {
            let mut packet = [0; 4096];
            while let Ok((length, client)) = socket.recv_from(&mut packet).await {
                let says = current.lock().clone();
                if let (Ok(query), Some(says)) = (Message::from_vec(&packet[..length]), says) {
                    let _ = socket.send_to(&answer(&query, &says), client).await;
                }
            }
        });
        Self { addr, says }
    }

    pub fn says(&self, addresses: &[IpAddr]) {
        *self.says.lock() = Some(addresses.to_vec());
    }

    pub fn silent(&self) {
        *self.says.lock() = None;
    }
}

fn answer(query: &Message, addresses: &[IpAddr]) -> Vec<u8> {
    let mut message = Message::response(query.metadata.id, query.metadata.op_code);
    message.metadata.recursion_available = true;
    for question in &query.queries {
        let records = addresses.iter().filter_map(|ip| match (ip, question.query_type()) {
            (IpAddr::V4(ip), RecordType::A) => Some(RData::A((*ip).into())),
            (IpAddr::V6(ip), RecordType::AAAA) => Some(RData::AAAA((*ip).into())),
            _ => None,
        });
        let name = question.name();
        message.answers.extend(records.map(|data| Record::from_rdata(name.clone(), 0, data)));
        message.add_query(question.clone());
    }
    message.to_vec().expect("an answer can be written")
}
