//! An answer on the wire: what does not fit is left out, and the client is told to ask again over TCP.

use hickory_proto::{
    ProtoError,
    op::{Header, HeaderCounts, Metadata, Query},
    rr::Record,
    serialize::binary::{BinEncodable, BinEncoder},
};

use super::{edns::Said, zones::address};
use crate::gslb::choice::Addresses;

/// All that an answer says.
pub(super) struct Reply<'a> {
    pub head: Metadata,
    pub question: Option<&'a Query>,
    pub sections: &'a Sections<'a>,
    pub said: Option<&'a Said>,
    /// In bytes.
    pub limit: u16,
}

/// Its records.
#[derive(Default)]
pub(super) struct Sections<'a> {
    pub answers: Answers<'a>,
    pub authority: &'a [Record],
    /// What a client could ask for next. It may be left out.
    pub additionals: &'a [Record],
}

#[derive(Default)]
pub(super) enum Answers<'a> {
    #[default]
    None,
    /// Of the name that is asked for.
    Addresses {
        addresses: Addresses,
        ttl: u32,
    },
    One(Box<Record>),
    Stored(&'a [Record]),
}

impl Answers<'_> {
    /// As records.
    pub fn records(&self, question: &Query) -> Vec<Record> {
        match self {
            Self::None => Vec::new(),
            Self::Addresses { addresses, ttl } => {
                addresses.iter().map(|ip| address(question.name.clone(), *ttl, *ip)).collect()
            }
            Self::One(record) => vec![(**record).clone()],
            Self::Stored(records) => records.to_vec(),
        }
    }
}

impl Reply<'_> {
    /// Writes it to `out`, which it empties first.
    ///
    /// # Errors
    /// A record that cannot be one; nothing is to be sent.
    pub fn write(&self, out: &mut Vec<u8>) -> Result<(), ProtoError> {
        out.clear();
        let mut head = self.head;
        let mut counts = HeaderCounts::default();
        let mut encoder = BinEncoder::new(out);
        encoder.set_max_size(self.limit - self.said.map_or(0, Said::length));
        let place = encoder.place::<Header>()?;
        if let Some(question) = self.question {
            question.emit(&mut encoder)?;
            counts.queries = 1;
        }
        let questioned = encoder.offset();
        match self.body(&mut encoder)? {
            Some(body) => counts = HeaderCounts { queries: counts.queries, ..body },
            None => {
                encoder.set_offset(questioned);
                encoder.trim();
                head.truncation = true;
            }
        }
        encoder.set_max_size(self.limit);
        if let Some(said) = self.said {
            said.record(head.response_code.high()).emit(&mut encoder)?;
            counts.additionals += 1;
        }
        place.replace(&mut encoder, Header { metadata: head, counts })
    }

    /// The records; `None`: they do not fit.
    fn body(&self, encoder: &mut BinEncoder<'_>) -> Result<Option<HeaderCounts>, ProtoError> {
        let Sections { answers, authority, additionals } = self.sections;
        let Some(answers) = fitting(self.answers(answers, encoder))? else { return Ok(None) };
        let Some(authorities) = fitting(encoder.emit_all(authority.iter()))? else { return Ok(None) };
        let additionals = match encoder.emit_all(additionals.iter()) {
            Ok(count) | Err(ProtoError::NotAllRecordsWritten { count, .. }) => count,
            Err(error) => return Err(error),
        };
        // What could not be written whole was taken back, but for its bytes.
        encoder.trim();
        let [answers, authorities, additionals] =
            [answers, authorities, additionals].map(|count| count as u16);
        Ok(Some(HeaderCounts { queries: 0, answers, authorities, additionals }))
    }

    fn answers(&self, answers: &Answers<'_>, encoder: &mut BinEncoder<'_>) -> Result<usize, ProtoError> {
        match (answers, self.question) {
            (Answers::Stored(records), _) => encoder.emit_all(records.iter()),
            (Answers::One(record), _) => record.emit(encoder).map(|()| 1),
            (Answers::Addresses { addresses, ttl }, Some(question)) => {
                for ip in addresses {
                    address(question.name.clone(), *ttl, *ip).emit(encoder)?;
                }
                Ok(addresses.len())
            }
            (Answers::None, _) | (Answers::Addresses { .. }, None) => Ok(0),
        }
    }
}

fn fitting(written: Result<usize, ProtoError>) -> Result<Option<usize>, ProtoError> {
    match written {
        Ok(count) => Ok(Some(count)),
        Err(ProtoError::MaxBufferSizeExceeded(_) | ProtoError::NotAllRecordsWritten { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
