/* SPDX-License-Identifier: Apache-2.0 */
/* certutil [-f] -addstore STORE FILE | -delstore STORE THUMBPRINT | -store STORE | -hashfile FILE [SHA1|SHA256|MD5]:
 * the stores of the machine. */
#include "tool.h"

#include <wincrypt.h>

static int failed(const wchar_t *what)
{
	DWORD error = GetLastError();
	fprintf(stderr, "CertUtil: -%ls command FAILED: 0x%lx (%lu)\n", what, error, error);
	return (int)error;
}

static void *read_file(const wchar_t *path, DWORD *size)
{
	HANDLE file = CreateFileW(path, GENERIC_READ, FILE_SHARE_READ, NULL, OPEN_EXISTING, 0, NULL);
	void *data = NULL;
	if (file == INVALID_HANDLE_VALUE)
		return NULL;
	*size = GetFileSize(file, NULL);
	data = malloc(*size + 1);
	if (!data || !ReadFile(file, data, *size, size, NULL))
		data = NULL;
	CloseHandle(file);
	return data;
}

/* DER, or base64 with or without its lines of PEM. */
static PCCERT_CONTEXT read_certificate(const wchar_t *path)
{
	DWORD size, decoded;
	BYTE *data = read_file(path, &size), *binary;
	if (!data)
		return NULL;
	PCCERT_CONTEXT certificate = CertCreateCertificateContext(X509_ASN_ENCODING, data, size);
	if (certificate ||
	    !CryptStringToBinaryA((char *)data, size, CRYPT_STRING_BASE64_ANY, NULL, &decoded, NULL, NULL))
		return certificate;
	binary = malloc(decoded);
	if (!binary || !CryptStringToBinaryA((char *)data, size, CRYPT_STRING_BASE64_ANY, binary, &decoded, NULL, NULL))
		return NULL;
	return CertCreateCertificateContext(X509_ASN_ENCODING, binary, decoded);
}

static HCERTSTORE open_store(const wchar_t *name, DWORD flags)
{
	return CertOpenStore(CERT_STORE_PROV_SYSTEM_W, 0, 0, CERT_SYSTEM_STORE_LOCAL_MACHINE | flags, name);
}

static void thumbprint_of(PCCERT_CONTEXT certificate, wchar_t text[41])
{
	BYTE hash[20];
	DWORD size = sizeof hash;
	text[0] = 0;
	if (CertGetCertificateContextProperty(certificate, CERT_SHA1_HASH_PROP_ID, hash, &size))
		for (DWORD i = 0; i < size; i++)
			_snwprintf(text + 2 * i, 3, L"%02x", hash[i]);
}

static int add(const wchar_t *store_name, const wchar_t *path)
{
	PCCERT_CONTEXT certificate = read_certificate(path);
	HCERTSTORE store = certificate ? open_store(store_name, 0) : NULL;
	if (!store || !CertAddCertificateContextToStore(store, certificate, CERT_STORE_ADD_REPLACE_EXISTING, NULL))
		return failed(L"addstore");
	CertCloseStore(store, 0);
	printf("%ls\nCertUtil: -addstore command completed successfully.\n", store_name);
	return 0;
}

/* Wine does not write a store again when something is taken out of it: the key that a certificate is kept in goes. */
static void forget(const wchar_t *store_name, wchar_t *thumbprint)
{
	wchar_t key[512];
	_snwprintf(key, 512, L"SOFTWARE\\Microsoft\\SystemCertificates\\%ls\\Certificates\\%ls", store_name,
		   _wcsupr(thumbprint));
	key[511] = 0;
	RegDeleteKeyW(HKEY_LOCAL_MACHINE, key);
}

static int list(const wchar_t *store_name, const wchar_t *wanted, bool removing)
{
	wchar_t thumbprint[41], subject[512];
	HCERTSTORE store = open_store(store_name, CERT_STORE_OPEN_EXISTING_FLAG);
	PCCERT_CONTEXT certificate = NULL;
	int found = 0;
	if (!store)
		return failed(removing ? L"delstore" : L"store");
	while ((certificate = CertEnumCertificatesInStore(store, certificate)) != NULL) {
		thumbprint_of(certificate, thumbprint);
		if (wanted && !is(wanted, thumbprint))
			continue;
		CertGetNameStringW(certificate, CERT_NAME_SIMPLE_DISPLAY_TYPE, 0, NULL, subject, 512);
		printf("================ Certificate %d ================\nSubject: CN=%ls\nCert Hash(sha1): %ls\n",
		       found++, subject, thumbprint);
		if (removing) {
			CertFreeCertificateContext(certificate);
			forget(store_name, thumbprint);
			break;
		}
	}
	CertCloseStore(store, 0);
	if (wanted && !found) {
		SetLastError((DWORD)CRYPT_E_NOT_FOUND);
		return failed(removing ? L"delstore" : L"store");
	}
	printf("CertUtil: -%s command completed successfully.\n", removing ? "delstore" : "store");
	return 0;
}

static int hash_file(const wchar_t *path, const wchar_t *algorithm)
{
	ALG_ID id = is(algorithm, L"SHA1")     ? CALG_SHA1
		    : is(algorithm, L"SHA256") ? CALG_SHA_256
		    : is(algorithm, L"MD5")    ? CALG_MD5
					       : 0;
	HCRYPTPROV provider;
	HCRYPTHASH hash;
	BYTE value[64];
	DWORD size, length = sizeof value;
	BYTE *data = read_file(path, &size);
	if (!id)
		unavailable_operation(L"certutil -hashfile", algorithm);
	if (!data || !CryptAcquireContextW(&provider, NULL, NULL, PROV_RSA_AES, CRYPT_VERIFYCONTEXT) ||
	    !CryptCreateHash(provider, id, 0, 0, &hash) || !CryptHashData(hash, data, size, 0) ||
	    !CryptGetHashParam(hash, HP_HASHVAL, value, &length, 0))
		return failed(L"hashfile");
	printf("%ls hash of %ls:\n", algorithm, path);
	for (DWORD i = 0; i < length; i++)
		printf("%02x", value[i]);
	printf("\nCertUtil: -hashfile command completed successfully.\n");
	return 0;
}

int wmain(int argc, wchar_t **argv)
{
	int first = 1;
	while (first < argc && (is_option(argv[first], L"f") || is_option(argv[first], L"enterprise")))
		first++;
	int left = argc - first;
	wchar_t **words = argv + first;
	if (left == 3 && is_option(words[0], L"addstore"))
		return add(words[1], words[2]);
	if (left == 3 && is_option(words[0], L"delstore"))
		return list(words[1], words[2], true);
	if ((left == 2 || left == 3) && is_option(words[0], L"store"))
		return list(words[1], left == 3 ? words[2] : NULL, false);
	if ((left == 2 || left == 3) && is_option(words[0], L"hashfile"))
		return hash_file(words[1], left == 3 ? words[2] : L"SHA1");
	unavailable_operation(L"certutil", left ? words[0] : L"");
}
