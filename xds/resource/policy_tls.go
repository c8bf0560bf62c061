package resource

func tlsPolicies() policies {
	const tls = "envoy.extensions.transport_sockets.tls.v3."
	return policies{
		// The socket within is decoded where transport sockets are.
		"envoy.extensions.transport_sockets.tcp_stats.v3.Config": policy{}.fields(built, "transport_socket", "update_period"),
		tls + "DownstreamTlsContext": policy{}.
			fields(inside, "common_tls_context", "session_ticket_keys", "session_ticket_keys_sds_secret_config").
			fields(built, "require_client_certificate", "disable_stateless_session_resumption", "disable_stateful_session_resumption",
				"session_timeout", "ocsp_staple_policy", "full_scan_certs_on_sni_mismatch").
			// Envoy has not built the first, and the library picks the cipher itself.
			fields(noted, "require_sni", "prefer_client_ciphers"),
		tls + "UpstreamTlsContext": policy{}.
			fields(inside, "common_tls_context").
			fields(built, "sni", "auto_host_sni", "auto_sni_san_validation", "max_session_keys",
				// Ignored by Envoy too, which always enforces it.
				"enforce_rsa_key_usage").
			// The library cannot.
			fields(noted, "allow_renegotiation"),
		tls + "CommonTlsContext": policy{}.
			fields(inside, "tls_params", "tls_certificates", "tls_certificate_sds_secret_configs", "validation_context",
				"validation_context_sds_secret_config", "combined_validation_context", "key_log").
			fields(built, "alpn_protocols").
			// Who vouches for whom.
			fields(refused, "tls_certificate_provider_instance", "custom_tls_certificate_selector", "custom_handshaker",
				"tls_certificate_certificate_provider", "tls_certificate_certificate_provider_instance",
				"validation_context_certificate_provider", "validation_context_certificate_provider_instance"),
		tls + "CommonTlsContext.CombinedCertificateValidationContext": policy{}.
			fields(inside, "default_validation_context", "validation_context_sds_secret_config").
			fields(refused, "validation_context_certificate_provider", "validation_context_certificate_provider_instance"),
		tls + "TlsParameters": policy{}.
			// The library takes the set of ciphers and curves, and orders them itself.
			fields(built, "tls_minimum_protocol_version", "tls_maximum_protocol_version", "cipher_suites", "ecdh_curves").
			// The library has its own, which are a part of BoringSSL's.
			fields(noted, "signature_algorithms").
			fields(refused, "compliance_policies"),
		tls + "TlsCertificate": policy{}.
			fields(built, "certificate_chain", "private_key", "pkcs12", "password", "ocsp_staple", "private_key_provider").
			fields(inside, "watched_directory", "tls_params").
			fields(noted, "signed_certificate_timestamp"), // Envoy has not built it either
		tls + "TlsSessionTicketKeys": policy{}.fields(built, "keys"),
		tls + "TlsKeyLog": policy{}.
			fields(built, "path").
			fields(inside, "local_address_range", "remote_address_range"),
		tls + "SdsSecretConfig": policy{}.
			fields(built, "name").
			fields(inside, "sds_config"),
		tls + "Secret": policy{}.
			fields(built, "name").
			fields(inside, "tls_certificate", "session_ticket_keys", "validation_context", "generic_secret"),
		tls + "GenericSecret": policy{}.fields(built, "secret", "secrets"),
		tls + "CertificateValidationContext": policy{}.
			// custom_validator_config is decided by its type (validation.go).
			fields(built, "trusted_ca", "system_root_certs", "verify_certificate_spki", "verify_certificate_hash",
				"match_typed_subject_alt_names", "match_subject_alt_names", "crl", "allow_expired_certificate",
				"trust_chain_verification", "custom_validator_config", "only_verify_leaf_cert_crl", "max_verify_depth",
				"suppress_client_ca_list").
			fields(inside, "watched_directory").
			fields(noted, "require_signed_certificate_timestamp"). // Envoy has not built it either
			fields(refused, "ca_certificate_provider_instance"),
		tls + "SPIFFECertValidatorConfig": policy{}.
			fields(inside, "trust_domains").
			fields(refused, "trust_bundles"),
		tls + "SPIFFECertValidatorConfig.TrustDomain": policy{}.
			fields(built, "name", "trust_bundle").
			fields(refused, "workload_trust_domain"),
	}
}
