//! What a status code means for us: servers answer the same thing with different codes, so they are
//! classified, not compared.

use opcua::types::StatusCode;

use crate::driver::DriverError;

/// Of one node of a write, or of the whole request.
pub(super) fn of_write(code: StatusCode, detail: &str) -> DriverError {
    let text = format!("{code} {detail}");
    match code {
        StatusCode::BadNotConnected | StatusCode::BadServerNotConnected => {
            DriverError::NotConnected
        }
        // The server says that it did not take it.
        StatusCode::BadSessionIdInvalid
        | StatusCode::BadSessionClosed
        | StatusCode::BadSessionNotActivated
        | StatusCode::BadSecureChannelIdInvalid
        | StatusCode::BadTooManyOperations
        | StatusCode::BadNotWritable
        | StatusCode::BadUserAccessDenied
        | StatusCode::BadTypeMismatch
        | StatusCode::BadOutOfRange
        | StatusCode::BadNodeIdUnknown
        | StatusCode::BadNodeIdInvalid
        | StatusCode::BadAttributeIdInvalid
        | StatusCode::BadIndexRangeInvalid
        | StatusCode::BadWriteNotSupported => DriverError::Refused(text),
        code if is_configuration(code) => DriverError::Config(text),
        // Time-outs, closed connections, internal errors and all that we do not know.
        _ => DriverError::Ambiguous(text),
    }
}

/// Of a read as a whole: nothing can have changed by it.
pub(super) fn of_read(code: StatusCode) -> DriverError {
    match code {
        StatusCode::BadTooManyOperations => DriverError::BadData(code.to_string()),
        code if is_configuration(code) => DriverError::Config(code.to_string()),
        _ => DriverError::NotConnected,
    }
}

/// Whether it will not heal by itself: someone at the farm must act.
pub(super) fn is_configuration(code: StatusCode) -> bool {
    matches!(
        code,
        StatusCode::BadUserAccessDenied
            | StatusCode::BadIdentityTokenInvalid
            | StatusCode::BadIdentityTokenRejected
            | StatusCode::BadSecurityChecksFailed
            | StatusCode::BadSecurityPolicyRejected
            | StatusCode::BadSecurityModeRejected
            | StatusCode::BadCertificateInvalid
            | StatusCode::BadCertificateUntrusted
            | StatusCode::BadCertificateUriInvalid
            | StatusCode::BadCertificateTimeInvalid
            | StatusCode::BadCertificateHostNameInvalid
            | StatusCode::BadCertificateUseNotAllowed
            | StatusCode::BadCertificateRevoked
            | StatusCode::BadCertificateChainIncomplete
            | StatusCode::BadTcpEndpointUrlInvalid
    )
}

/// What an installer should do about it.
pub(super) fn advice(code: StatusCode) -> &'static str {
    match code {
        StatusCode::BadUserAccessDenied
        | StatusCode::BadIdentityTokenInvalid
        | StatusCode::BadIdentityTokenRejected => "check user and password_file",
        StatusCode::BadCertificateUntrusted | StatusCode::BadSecurityChecksFailed => {
            "move the certificate from rejected to trusted, here below data_dir/pki and at the server"
        }
        StatusCode::BadTcpEndpointUrlInvalid => "check the path in url",
        _ => "check security and the certificates",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_have_happened_is_never_called_refused() {
        for code in [
            StatusCode::BadTimeout,
            StatusCode::BadConnectionClosed,
            StatusCode::BadCommunicationError,
            StatusCode::BadRequestTimeout,
            StatusCode::BadUnexpectedError,
            StatusCode::BadInternalError,
            StatusCode::BadUnknownResponse,
        ] {
            assert!(of_write(code, "").may_have_been_applied(), "{code}");
        }
        assert_eq!(of_write(StatusCode::BadNotConnected, ""), DriverError::NotConnected);
        assert!(matches!(of_write(StatusCode::BadNotWritable, ""), DriverError::Refused(_)));
    }
}
