//! Resource names and the ids in them. Past this module there are no bare strings.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

use super::{Invalid, Reason};

/// `[a-z][a-z0-9-]{1,61}[a-z0-9]`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slug(String);

impl Slug {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Slug {
    type Err = Invalid;

    fn from_str(s: &str) -> Result<Self, Invalid> {
        let bytes = s.as_bytes();
        let ok = (3..=63).contains(&bytes.len())
            && bytes[0].is_ascii_lowercase()
            && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
            && bytes[bytes.len() - 1] != b'-';
        if ok {
            Ok(Self(s.into()))
        } else {
            Err(Invalid::field(
                "",
                "must be 3 to 63 of a-z, 0-9 and -, begin with a letter and not end with -",
            ))
        }
    }
}

impl fmt::Display for Slug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

macro_rules! slug_id {
    ($($(#[$doc:meta])* $id:ident),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $id(Slug);

        impl $id {
            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                self.0.as_str()
            }
        }

        impl FromStr for $id {
            type Err = Invalid;

            fn from_str(s: &str) -> Result<Self, Invalid> {
                s.parse().map(Self)
            }
        }

        impl fmt::Display for $id {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )+};
}

slug_id!(
    /// A farm.
    FarmId,
    /// An agent within its farm.
    AgentId,
    /// A tank within its farm.
    TankId,
    /// A robot within its farm.
    RobotId,
    /// A feeder within its farm.
    FeederId,
);

impl FarmId {
    /// `farms/{farm}`.
    #[must_use]
    pub fn name(&self) -> String {
        format!("farms/{self}")
    }

    /// Reads `farms/{farm}`.
    ///
    /// # Errors
    /// If it is not of that form.
    pub fn from_name(name: &str) -> Result<Self, Invalid> {
        let bad = || Invalid::field("", "must be farms/{farm}");
        let farm = name.strip_prefix("farms/").ok_or_else(bad)?;
        farm.parse().map_err(|_| bad())
    }
}

/// Splits `farms/{farm}/{collection}/{id}`.
fn split<'a>(name: &'a str, collection: &str) -> Option<(&'a str, &'a str)> {
    let mut parts = name.split('/');
    let (a, farm, c, id) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    (a == "farms" && c == collection && parts.next().is_none()).then_some((farm, id))
}

macro_rules! farm_name {
    ($($(#[$doc:meta])* $name:ident { $field:ident: $id:ident } in $collection:literal),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name {
            /// The farm.
            pub farm: FarmId,
            /// The id within it.
            pub $field: $id,
        }

        impl $name {
            /// Joins the two.
            #[must_use]
            pub fn new(farm: FarmId, $field: $id) -> Self {
                Self { farm, $field }
            }
        }

        impl FromStr for $name {
            type Err = Invalid;

            fn from_str(s: &str) -> Result<Self, Invalid> {
                let parsed = split(s, $collection)
                    .and_then(|(farm, id)| Some(Self::new(farm.parse().ok()?, id.parse().ok()?)));
                parsed.ok_or_else(|| {
                    Invalid::field("", concat!("must be farms/{farm}/", $collection, "/{id}"))
                })
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!("farms/{}/", $collection, "/{}"), self.farm, self.$field)
            }
        }
    )+};
}

farm_name!(
    /// `farms/{farm}/agents/{agent}`.
    AgentName { agent: AgentId } in "agents",
    /// `farms/{farm}/tanks/{tank}`.
    TankName { tank: TankId } in "tanks",
    /// `farms/{farm}/robots/{robot}`.
    RobotName { robot: RobotId } in "robots",
    /// `farms/{farm}/feeders/{feeder}`.
    FeederName { feeder: FeederId } in "feeders",
    /// `farms/{farm}/commands/{request id}`.
    CommandName { request: RequestId } in "commands",
);

/// A UUID that the caller made; it is the command's name within the farm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(Uuid);

impl RequestId {
    /// The id of one feeder's command within a command for the whole farm.
    #[must_use]
    pub fn child(self, feeder: &FeederName) -> Self {
        Self(Uuid::new_v5(&self.0, feeder.to_string().as_bytes()))
    }

    /// Reads the `request_id` of a mutating request.
    ///
    /// # Errors
    /// `REQUEST_ID_REQUIRED` if it is empty, `INVALID_FIELD` if it is not a UUID.
    pub fn required(s: &str) -> Result<Self, Invalid> {
        if s.is_empty() {
            return Err(Invalid::because(
                Reason::RequestIdRequired,
                "request_id",
                "is required: make a new UUID for each intention and keep it until it is settled",
            ));
        }
        s.parse().map_err(|e: Invalid| e.under("request_id"))
    }
}

impl From<Uuid> for RequestId {
    fn from(id: Uuid) -> Self {
        Self(id)
    }
}

impl FromStr for RequestId {
    type Err = Invalid;

    fn from_str(s: &str) -> Result<Self, Invalid> {
        // Only the hyphenated form: one id must have one name.
        let parsed = (s.len() == 36).then(|| Uuid::try_parse(s).ok()).flatten();
        parsed.map(Self).ok_or_else(|| {
            Invalid::field("", "must be a UUID such as 0191d7a2-7c4e-7b1a-9f3e-2b8f6d0c5a11")
        })
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_hyphenated().fmt(f)
    }
}
