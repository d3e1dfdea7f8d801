/* SPDX-License-Identifier: Apache-2.0 */
/* Certificates go into LocalMachine, into predefined stores or ones of their own, keys into the machine's containers. */
#include "guest.h"

#include <wincrypt.h>

#include <stdlib.h>
#include <string.h>

enum { MOST_FILE = 1 << 20 };

static char *thumbprint_of(PCCERT_CONTEXT certificate)
{
	unsigned char hash[20];
	DWORD size = sizeof hash;
	char *text = "";
	if (CertGetCertificateContextProperty(certificate, CERT_SHA1_HASH_PROP_ID, hash, &size))
		for (DWORD i = 0; i < size; i++)
			text = format("%s%02X", text, hash[i]);
	return text;
}

static HCERTSTORE open_store(const char *name, DWORD flags)
{
	return CertOpenStore(CERT_STORE_PROV_SYSTEM_W, 0, 0, CERT_SYSTEM_STORE_LOCAL_MACHINE | flags, wide(name));
}

/* Wine puts every imported key into one container that is named after the user, where the next one overwrites it: the
 * key goes on into a container of the machine that is named after the certificate. Windows makes one for each itself. */
static void move_key(PCCERT_CONTEXT certificate, const char *thumbprint)
{
	CERT_KEY_CONTEXT imported = {.cbSize = sizeof imported};
	DWORD size = sizeof imported, length = 0;
	HCRYPTPROV to = 0;
	HCRYPTKEY key = 0, moved = 0;
	wchar_t *container = wide(thumbprint);
	if (!CertGetCertificateContextProperty(certificate, CERT_KEY_CONTEXT_PROP_ID, &imported, &size) ||
	    !CryptGetUserKey(imported.hCryptProv, imported.dwKeySpec, &key) ||
	    !CryptExportKey(key, 0, PRIVATEKEYBLOB, 0, NULL, &length))
		fail_error(GetLastError(), "the private key of the certificate %s cannot be read", thumbprint);
	BYTE *blob = malloc(length);
	CryptAcquireContextW(&to, container, MS_ENHANCED_PROV_W, PROV_RSA_FULL,
			     CRYPT_MACHINE_KEYSET | CRYPT_DELETEKEYSET);
	if (!blob || !CryptExportKey(key, 0, PRIVATEKEYBLOB, 0, blob, &length) ||
	    !CryptAcquireContextW(&to, container, MS_ENHANCED_PROV_W, PROV_RSA_FULL,
				  CRYPT_MACHINE_KEYSET | CRYPT_NEWKEYSET) ||
	    !CryptImportKey(to, blob, length, 0, 0, &moved))
		fail_error(GetLastError(), "the private key of the certificate %s gets no container", thumbprint);
	SecureZeroMemory(blob, length);
	CRYPT_KEY_PROV_INFO place = {.pwszContainerName = container,
				     .pwszProvName = (wchar_t *)MS_ENHANCED_PROV_W,
				     .dwProvType = PROV_RSA_FULL,
				     .dwFlags = CRYPT_MACHINE_KEYSET,
				     .dwKeySpec = imported.dwKeySpec};
	if (!CertSetCertificateContextProperty(certificate, CERT_KEY_PROV_INFO_PROP_ID, 0, &place))
		fail_error(GetLastError(), "the private key of the certificate %s cannot be found again", thumbprint);
	CryptDestroyKey(moved);
	CryptDestroyKey(key);
	CryptReleaseContext(to, 0);
	free(blob);
}

static PCCERT_CONTEXT import_pfx(const wchar_t *path, const char *password, const char *thumbprint)
{
	CRYPT_DATA_BLOB pfx;
	size_t size;
	PCCERT_CONTEXT found = NULL;
	pfx.pbData = (BYTE *)read_file(path, MOST_FILE, &size);
	if (!pfx.pbData)
		fail_error(GetLastError(), "%s cannot be read", narrow(path));
	pfx.cbData = (DWORD)size;
	DWORD flags = CRYPT_MACHINE_KEYSET | (on_stand_in() ? CRYPT_EXPORTABLE | PKCS12_NO_PERSIST_KEY : 0);
	HCERTSTORE store = PFXImportCertStore(&pfx, wide(password ? password : ""), flags);
	if (!store)
		fail_error(GetLastError(), "the certificate %s cannot be imported", thumbprint);
	while ((found = CertEnumCertificatesInStore(store, found)) != NULL)
		if (_stricmp(thumbprint_of(found), thumbprint) == 0)
			break;
	if (!found)
		fail("%s holds another certificate than %s", narrow(path), thumbprint);
	if (on_stand_in())
		move_key(found, thumbprint);
	return found;
}

static PCCERT_CONTEXT read_certificate(const wchar_t *path, const char *thumbprint)
{
	size_t size;
	char *data = read_file(path, MOST_FILE, &size);
	if (!data)
		fail_error(GetLastError(), "%s cannot be read", narrow(path));
	PCCERT_CONTEXT found = CertCreateCertificateContext(X509_ASN_ENCODING, (BYTE *)data, (DWORD)size);
	if (!found)
		fail_error(GetLastError(), "%s cannot be read as a certificate", narrow(path));
	if (_stricmp(thumbprint_of(found), thumbprint) != 0)
		fail("%s holds another certificate than %s", narrow(path), thumbprint);
	return found;
}

static void install(const wchar_t *medium, const char *thumbprint, const char *store_name, const char *password)
{
	wchar_t *folder = join(medium, "certificates");
	wchar_t *pfx = join(folder, format("%s.pfx", thumbprint)), *cer = join(folder, format("%s.cer", thumbprint));
	bool has_key = GetFileAttributesW(pfx) != INVALID_FILE_ATTRIBUTES;
	PCCERT_CONTEXT certificate =
		has_key ? import_pfx(pfx, password, thumbprint) : read_certificate(cer, thumbprint);
	HCERTSTORE store = open_store(store_name, 0);
	if (!store || !CertAddCertificateContextToStore(store, certificate, CERT_STORE_ADD_REPLACE_EXISTING, NULL))
		fail_error(GetLastError(), "the certificate %s cannot be put into LocalMachine\\%s", thumbprint,
			   store_name);
	CertCloseStore(store, 0);
	CertFreeCertificateContext(certificate);
}

void install_certificates(const wchar_t *medium, const struct answer *answer)
{
	for (int i = 0; i < answer->certificate_count; i++)
		install(medium, answer->certificates[i].thumbprint, answer->certificates[i].store,
			answer->pfx_password);
	if (answer->winrm_certificate)
		install(medium, answer->winrm_certificate, "My", answer->pfx_password);
}

static char *container_of(PCCERT_CONTEXT certificate)
{
	DWORD size = 0;
	HCRYPTPROV provider;
	if (!CertGetCertificateContextProperty(certificate, CERT_KEY_PROV_INFO_PROP_ID, NULL, &size))
		return "-";
	CRYPT_KEY_PROV_INFO *where = malloc(size);
	if (!where || !CertGetCertificateContextProperty(certificate, CERT_KEY_PROV_INFO_PROP_ID, where, &size))
		return "-";
	if (where->dwProvType != 0) { /* 0: a key storage provider, which this interface cannot open */
		if (!CryptAcquireContextW(&provider, where->pwszContainerName, where->pwszProvName, where->dwProvType,
					  CRYPT_MACHINE_KEYSET | CRYPT_SILENT))
			return "-";
		CryptReleaseContext(provider, 0);
	}
	return narrow(where->pwszContainerName);
}

char *describe_certificate(const struct certificate *wanted)
{
	PCCERT_CONTEXT found = NULL;
	char *container = NULL;
	HCERTSTORE store = open_store(wanted->store, CERT_STORE_OPEN_EXISTING_FLAG | CERT_STORE_READONLY_FLAG);
	while (store && !container && (found = CertEnumCertificatesInStore(store, found)) != NULL)
		if (_stricmp(thumbprint_of(found), wanted->thumbprint) == 0)
			container = container_of(found);
	return container;
}
