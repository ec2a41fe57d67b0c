//! What a packet asks, or why it cannot be answered as it wants to.

use hickory_proto::{
    op::{Header, MessageType, Metadata, OpCode, Query, ResponseCode},
    rr::{Name, RecordType},
    serialize::binary::{BinDecodable, BinDecoder, DecodeError, EncodedSize},
};

use super::edns::Edns;

/// A packet as far as it could be read.
pub(super) struct Request {
    pub head: Metadata,
    /// Of the question, as it was spelt.
    pub question: Option<Query>,
    pub edns: Option<Edns>,
    /// What it is to be told if it cannot be answered.
    pub fault: Option<ResponseCode>,
}

impl Request {
    /// `None`: it is to be met with silence. Such packets have no header, or are answers themselves, and to answer
    /// an answer may go on forever.
    pub fn read(packet: &[u8]) -> Option<Self> {
        let mut decoder = BinDecoder::new(packet);
        let header = Header::read(&mut decoder).ok()?;
        if header.message_type == MessageType::Response {
            return None;
        }
        let mut request = Self { head: header.metadata, question: None, edns: None, fault: None };
        if header.op_code != OpCode::Query {
            request.fault = Some(ResponseCode::NotImp);
        } else if let Err(fault) = request.read_body(&header, &mut decoder) {
            request.fault = Some(fault);
        }
        Some(request)
    }

    fn read_body(&mut self, header: &Header, decoder: &mut BinDecoder<'_>) -> Result<(), ResponseCode> {
        let counts = header.counts;
        let others = u32::from(counts.authorities) + u32::from(counts.additionals);
        if counts.queries != 1 || counts.answers != 0 || others > MOST_RECORDS {
            return Err(ResponseCode::FormErr);
        }
        let question = Query::read(decoder).map_err(form_error)?;
        let name: usize = question.name.iter().map(|label| 1 + label.len()).sum();
        // A name that is compressed where there is nothing yet to refer to.
        if Header::LEN + name + 1 + TYPE_AND_CLASS != decoder.index() {
            return Err(ResponseCode::FormErr);
        }
        self.question = Some(question);
        // An IXFR has the SOA that it knows.
        for _ in 0..counts.authorities {
            if Extra::read(decoder).map_err(form_error)?.kind == RecordType::OPT {
                return Err(ResponseCode::FormErr);
            }
        }
        let mut signed = false;
        for _ in 0..counts.additionals {
            let extra = Extra::read(decoder).map_err(form_error)?;
            match extra.kind {
                RecordType::OPT if extra.is_of_root && self.edns.is_none() => {
                    let edns = Edns::read(extra.class, extra.ttl, extra.data);
                    self.edns = Some(edns.map_err(|_| {
                        self.edns = Some(Edns::default());
                        ResponseCode::FormErr
                    })?);
                }
                RecordType::OPT => return Err(ResponseCode::FormErr),
                RecordType::TSIG => signed = true,
                _ => {}
            }
        }
        if !decoder.is_empty() {
            return Err(ResponseCode::FormErr);
        }
        match self.edns {
            Some(Edns { version: 1.., .. }) => Err(ResponseCode::BADVERS),
            // There are no keys that a signature could be of.
            _ if signed => Err(ResponseCode::NotAuth),
            _ => Ok(()),
        }
    }
}

/// A record that comes with a question.
struct Extra<'p> {
    is_of_root: bool,
    kind: RecordType,
    class: u16,
    ttl: u32,
    data: &'p [u8],
}

impl<'p> Extra<'p> {
    fn read(decoder: &mut BinDecoder<'p>) -> Result<Self, DecodeError> {
        let is_of_root = Name::read(decoder)?.is_root();
        let kind = RecordType::read(decoder)?;
        let class = decoder.read_u16()?.unverified();
        let ttl = decoder.read_u32()?.unverified();
        let length = decoder.read_u16()?.unverified();
        let data = decoder.read_slice(length.into())?.unverified();
        Ok(Self { is_of_root, kind, class, ttl, data })
    }
}

fn form_error(_: DecodeError) -> ResponseCode {
    ResponseCode::FormErr
}

const TYPE_AND_CLASS: usize = 4;

/// With a question. A query has an OPT record and perhaps a signature; more would only keep us busy.
const MOST_RECORDS: u32 = 8;
